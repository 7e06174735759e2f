//! The models that configurations may name: each stands in one file with its entry.

pub mod mlp;

use gumbel::engine::ModelEntry;
use gumbel::registry::Registry;

/// All models of this workspace: a new one is a file and a line here.
pub fn models() -> Registry<ModelEntry> {
    Registry::new("model", [mlp::entry()])
}
