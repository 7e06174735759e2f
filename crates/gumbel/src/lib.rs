//! gumbel
