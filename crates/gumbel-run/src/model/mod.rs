//! The models that configurations may name: each stands in one file with its entry.

pub mod conv;
pub mod mlp;

use gumbel::engine::ModelEntry;
use gumbel::registry::Entries;

/// All models of this workspace: a new one is a file and a line here.
pub fn models() -> Entries<ModelEntry> {
    Entries::new("model", [mlp::entry(), conv::entry()])
}
