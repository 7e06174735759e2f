//! gumbel-data
