//! What a training costs, roughly: the longest run of a sweep begins first, so that none is left alone at the end.

use crate::Config;
use gumbel::continuous::Continuous;
use gumbel::estimator::Follows;
use gumbel::registry::Value;
use gumbel::structure::Structure;

/// Images for training and in each of the other splits; of data sets that are not known here, as many as in most.
fn images(config: &Config) -> (f64, f64) {
    let (train, eval) = match config.text("dataset") {
        "celeba" => (162_770, 19_900),
        "omniglot" => (23_000, 8_000),
        _ => (50_000, 10_000),
    };
    let limited = |all: usize, limit: usize| if limit == 0 { all } else { limit.min(all) } as f64;
    (limited(train, config.count("train-limit")), limited(eval, config.count("eval-limit")))
}

/// The work of all epochs and evaluations of a run, in passes of one image through the decoder of one hidden unit.
pub(crate) fn work(config: &Config) -> f64 {
    let structure = &config.latent().structure;
    let (train, eval) = images(config);
    let count = |key| config.count(key).max(1) as f64;
    let (batch, samples) = (count("batch-size"), count("samples"));
    let units = structure.unary() as f64;
    // What the states of one K-way variable cost is shared by the images of a batch.
    let enumerated = structure.states().filter(|states| *states <= 1 << 15).map(|states| states as f64);
    let table = |share: f64| enumerated.map(|states| if structure.variables() == 1 { states / share } else { states });

    let mut rows = 3.0; // the encoder, forth and back
    match config.estimator() {
        Ok(estimator) => {
            let asked = estimator.questions(structure);
            let rounds = match config.settings().get("rounds") {
                Some(Value::Whole(rounds)) => *rounds as f64 + 1.0,
                _ => 1.0,
            };
            let draws = if estimator.is_random() { samples } else { 1.0 };
            // A change of one coordinate is found from a row that is there.
            let around = if structure.variables() == 1 { table(batch).unwrap_or(units) } else { 0.5 * units };
            let parts = [
                (asked.losses, 2.0 * draws),
                (asked.around, around * draws),
                (asked.slopes, 3.0 * rounds * draws),
                (asked.states, table(batch).unwrap_or(units)),
            ];
            rows += parts.iter().filter(|(asks, _)| *asks).map(|(_, rows)| rows).sum::<f64>();
            rows += 3.0
                * match estimator.follows() {
                    Follows::States => table(batch).unwrap_or(units),
                    _ => estimator.rows(config.count("samples")) as f64,
                };
        }
        Err(_) => rows += 4.0,
    }
    // What a step costs whatever its batch.
    rows += 20.0 / batch;
    let evaluated = 2_000f64.min(train) + 2.0 * eval;
    let evaluations = (count("epochs") / count("eval-every")).ceil();
    // All states of an image where they can be enumerated, which a table or lists of differences make cheap.
    let rows_of_evaluation = 1.0 + table(100.0).unwrap_or(100.0) * 0.1;
    let codes = match config.continuous() {
        Continuous::None => 1.0,
        Continuous::Rows(_) => enumerated.unwrap_or(64.0).min(64.0),
        _ => 2.0,
    };
    let hidden: f64 = match config.settings().get("hidden") {
        Some(Value::Text(widths)) => widths.split(',').filter_map(|w| w.trim().parse::<f64>().ok()).sum(),
        Some(Value::Whole(width)) => *width as f64,
        _ => 3_000.0, // convolutions, or a model that says nothing of its size
    };
    hidden.max(1.0) * codes * (count("epochs") * train * rows + evaluations * evaluated * rows_of_evaluation)
}
