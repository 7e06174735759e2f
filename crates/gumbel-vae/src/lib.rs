//! gumbel-vae
