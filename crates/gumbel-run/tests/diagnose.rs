//! The microscope on stored runs: its lines, gradients by layer against those at the potentials, what it refuses.

use gumbel::continuous::Draw;
use gumbel::diagnose::Reference;
use gumbel::engine::Engine;
use gumbel::noise::{Noise, Purpose};
use gumbel::structure::Structure;
use gumbel_data::Split;
use gumbel_run::diagnose::{Averaging, Line, Request, Watcher, draw, run};
use gumbel_run::images::{SplitImages, shape};
use gumbel_run::{Config, Registry};
use std::ops::ControlFlow;

fn request(estimators: &[&str]) -> Request {
    Request {
        estimators: estimators.iter().map(|e| e.to_string()).collect(),
        epsilon: vec![0.3, 1.0],
        temperature: vec![0.5],
        draws: 60,
        learn: 10,
        reference_draws: 50,
        batch: 20,
        layers: false,
        seed: 4,
    }
}

/// A model of the generated images with its initial parameters.
fn with<T>(latent: &str, more: &[(&str, &str)], f: impl FnOnce(&Config, &mut dyn Engine, &SplitImages<'_>) -> T) -> T {
    let given = [&[("latent", latent), ("train-limit", "40"), ("eval-limit", "20"), ("hidden", "24")], more].concat();
    let config = Config::new(&Registry::standard(), &given).unwrap();
    let data = config.load(&gumbel_data::Source::default(), &mut |_| {}).unwrap();
    let mut engine = config.engine(&*config.estimator().unwrap(), shape(&data)).unwrap();
    f(&config, &mut *engine, &SplitImages::new(&data, Split::Train, config.binarization(), 0))
}

fn lines(latent: &str, request: &Request) -> Result<Vec<Line>, String> {
    with(latent, &[], |config, engine, images| {
        let mut seen = 0;
        let found = run(config, engine, images, request, &mut |_: &Line| {
            seen += 1;
            ControlFlow::Continue(())
        });
        let found = found.map_err(|e| e.to_string())?;
        assert_eq!(seen, found.len());
        Ok(found)
    })
}

#[test]
fn every_estimator_that_a_latent_can_have_is_looked_at() {
    for latent in ["categorical:4", "binary:4", "chain:3x3", "binary:16"] {
        let found = lines(latent, &Request { draws: 4, learn: 2, ..request(&[]) }).unwrap();
        let names: Vec<&str> = found.iter().map(|l| l.estimator.as_str()).collect();
        assert_eq!(names.contains(&"arm"), latent.starts_with("binary"), "{latent}: {names:?}");
        assert_eq!(names.contains(&"exact"), latent != "binary:16", "{latent}: {names:?}");
        assert!(names.contains(&"rloo") && names.contains(&"direct"));
        for line in &found {
            assert!(line.std >= 0.0 && line.bias >= 0.0 && line.cosine.abs() <= 1.0 + 1e-9, "{line:?}");
            assert!(line.rows_without_gradient.unwrap() + line.rows_with_gradient.unwrap() > 0.0, "{line:?}");
            assert_eq!((line.at.as_str(), line.images), ("potentials", 20));
            assert_eq!(line.norm_error > 0.0, latent == "binary:16");
            if line.estimator == "exact" {
                assert!(line.bias < 1e-7 && (line.cosine - 1.0).abs() < 1e-6, "{line:?}");
            }
        }
        let epsilons: Vec<f64> = found.iter().filter(|l| l.estimator == "direct").filter_map(|l| l.epsilon).collect();
        assert_eq!(epsilons, [0.3, 1.0]);
    }
}

#[test]
fn settings_samples_and_the_kl_are_taken() {
    let specs = ["direct:joint=search", "direct:kl", "direct:epsilon=0.7", "rloo:samples=5", "marginal", "direct"];
    let found = lines("binary:4", &request(&specs)).unwrap();
    let of = |spec: &str| found.iter().filter(|l| l.spec == spec).collect::<Vec<_>>();
    assert_eq!((of("direct:kl").len(), of("direct:joint=search").len()), (2, 2));
    assert!(of("direct:joint=search")[0].measures.contains_key("search_rows"));
    assert_eq!(of("direct:epsilon=0.7").iter().map(|l| l.epsilon).collect::<Vec<_>>(), [Some(0.7)]);
    assert_eq!((of("rloo:samples=5")[0].samples, of("rloo:samples=5")[0].rows_without_gradient), (5, Some(5.0)));
    // What has the KL in its objective is compared with the gradient of the bound.
    assert_eq!(
        (of("direct:kl")[0].objective, of("marginal")[0].objective, of("direct")[0].objective),
        ("bound", "bound", "loss")
    );
    assert_ne!(of("direct:kl")[0].norm, of("direct")[0].norm);
}

/// An epsilon that is held stands at the value at which it was measured, by layer too, and in the picture.
#[test]
fn a_held_epsilon_is_told_as_it_was() {
    let specs = ["direct:epsilon=0.3:zero-gradient-target=0.5", "direct:epsilon=0.3"];
    let request = Request { layers: true, draws: 20, learn: 300, ..request(&specs) };
    let found = lines("categorical:4", &request).unwrap();
    let (held, fixed): (Vec<&Line>, Vec<&Line>) = found.iter().partition(|l| l.spec == specs[0]);
    let measured = held[0].measures["adaptive_epsilon"];
    assert!((measured / 0.3 - 1.0).abs() > 0.05, "{measured} is where it began");
    assert!(held.len() == 9 && held.iter().all(|l| l.epsilon == Some(measured)), "{held:?}");
    assert!(fixed.len() == 9 && fixed.iter().all(|l| l.epsilon == Some(0.3)), "{fixed:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("figure.svg");
    draw(&path, "held", &found).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    // Points at places of their own in each of four panels: no lines across.
    let places = svg.lines().filter_map(|l| Some(l.split_once("<circle cx=\"")?.1.split_once('"')?.0));
    let places: Vec<&str> = places.collect();
    assert_eq!(places.len(), 8, "{places:?}");
    assert!(places.chunks(2).all(|panel| panel[0] != panel[1]), "{places:?}");
}

#[test]
fn whoever_looks_may_stop() {
    let found = with("binary:4", &[], |config, engine, images| {
        run(config, engine, images, &request(&["exact", "direct"]), &mut |_: &Line| ControlFlow::Break(())).unwrap()
    });
    assert_eq!(found.len(), 1);
}

/// The bias of the encoder's last layer adds to the potentials, so that its gradient is the sum of theirs.
#[test]
fn layers_have_the_gradients_of_training() {
    let request = Request { layers: true, draws: 40, ..request(&["exact", "local-expectation", "direct:kl"]) };
    let found = lines("categorical:4", &request).unwrap();
    let names = |part: &str| found.iter().filter(|l| l.estimator == "exact" && l.at.starts_with(part)).count();
    assert_eq!((names("potentials"), names("encoder"), names("decoder")), (1, 4, 4));
    let of = |estimator: &str, at: &str| found.iter().find(|l| l.estimator == estimator && l.at == at).unwrap();
    let sum = with("categorical:4", &[], |_, engine, images| {
        let structure = engine.structure().clone();
        let batch: Vec<u32> = (0..20).collect();
        let noise = Noise::new(4, Purpose::Gaussian, 0);
        let mut asked = engine.ask(images, &batch, Draw::Sample(&noise)).unwrap();
        let exact = Reference::new(&structure, &asked.potentials, &mut *asked.oracle, 0, 0).unwrap();
        let mut sum = [0.0; 4];
        exact.gradient.chunks(structure.potentials()).for_each(|g| sum.iter_mut().zip(g).for_each(|(s, g)| *s += g));
        sum.iter().map(|s| s * s).sum::<f64>().sqrt()
    });
    let bias = of("exact", "encoder.layers.1.bias");
    assert!((bias.norm - sum).abs() < 1e-4 * sum, "{bias:?} {sum}");
    assert!(bias.bias < 1e-5 * bias.norm && bias.std == 0.0, "{bias:?}");
    // One variable: local expectations are exact for the encoder, and random for the decoder.
    let encoder = of("local-expectation", "encoder.layers.0.weight");
    assert!(encoder.bias < 1e-4 * encoder.norm && encoder.std < 1e-3 * encoder.norm, "{encoder:?}");
    let decoder = of("local-expectation", "decoder.layers.0.weight");
    assert!(decoder.std > 0.01 * decoder.norm && decoder.bias < 8.0 * decoder.bias_error, "{decoder:?}");
    assert_eq!(of("direct", "encoder.layers.0.weight").objective, "bound");
}

/// More states than can be enumerated: a long average of training steps, as the potentials have one of draws.
#[test]
fn layers_of_many_states_are_compared_with_an_average() {
    #[derive(Default)]
    struct Seen {
        averages: Vec<(bool, &'static str, usize)>,
        lines: Vec<Line>,
    }
    impl Watcher for Seen {
        fn averaged(&mut self, of: &Averaging, done: usize) {
            assert!(done < of.draws && (of.draws, of.images) == (60, 20));
            if done == 0 {
                self.averages.push((of.layers, of.estimator, of.samples));
            }
        }
        fn line(&mut self, line: &Line) -> ControlFlow<()> {
            self.lines.push(line.clone());
            ControlFlow::Continue(())
        }
    }
    for (latent, by, samples) in [("binary:16", "local-expectation", 1), ("chain:5x9", "rloo", 16)] {
        let request =
            Request { layers: true, draws: 40, reference_draws: 60, ..request(&["rloo:samples=4", "direct:kl"]) };
        let mut seen = Seen::default();
        with(latent, &[], |config, engine, images| run(config, engine, images, &request, &mut seen)).unwrap();
        // For the potentials, for the loss by layer, and for the bound.
        assert_eq!(seen.averages, [(false, by, samples), (true, by, samples), (true, by, samples)], "{latent}");
        let all = seen.lines.iter().filter(|l| l.estimator == "rloo" && l.at != "potentials");
        let all: Vec<&Line> = all.collect();
        assert_eq!(all.len(), 8);
        for line in all {
            assert!(line.norm > 0.0 && line.norm_error > 0.0 && line.reference == by, "{latent}: {line:?}");
            assert!(line.bias < 8.0 * line.bias_error.max(line.norm_error), "{latent}: {line:?}");
        }
    }
}

/// Gaussian codes stand still: what varies is the estimate.
/// States that can be enumerated, but not by the engine in one step: exact at the potentials, an average by layer.
#[test]
fn layers_are_averaged_where_an_engine_has_no_step_over_all_states() {
    let request = Request { layers: true, draws: 20, reference_draws: 40, ..request(&["rloo:samples=4"]) };
    let found = with("binary:11", &[("engine", "fused")], |config, engine, images| {
        run(config, engine, images, &request, &mut |_: &Line| ControlFlow::Continue(())).unwrap()
    });
    let (at_potentials, by_layer) = found.split_at(1);
    assert_eq!((at_potentials[0].reference, at_potentials[0].norm_error), ("exact", 0.0));
    assert!(!by_layer.is_empty());
    for line in by_layer {
        assert!(line.reference != "exact" && line.norm_error > 0.0, "{line:?}");
        assert!(line.bias < 8.0 * line.bias_error.max(line.norm_error), "{line:?}");
    }
}

#[test]
fn mixed_models_are_looked_at() {
    let more = [("continuous", "rows:3"), ("hidden", "16"), ("head", "8"), ("part", "6"), ("shared", "6")];
    let more = [&more[..], &[("decoder-hidden", "16")]].concat();
    let found = with("categorical:4", &more, |config, engine, images| {
        let specs = ["exact", "direct", "rloo:samples=3"];
        run(config, engine, images, &request(&specs), &mut |_: &Line| ControlFlow::Continue(())).unwrap()
    });
    assert!(found[0].bias < 1e-7 && found[0].norm > 0.0, "{:?}", found[0]);
    // Four standard errors of the square are eight of the root.
    assert!(found[1].std > 0.0 && found[3].bias < 8.0 * found[3].bias_error, "{found:?}");
}

#[test]
fn what_cannot_be_is_named() {
    let fails = |latent: &str, request: Request, parts: &[&str]| {
        let error = lines(latent, &request).unwrap_err();
        parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in: {error}"));
    };
    fails("categorical:4", request(&["disarm"]), &["disarm", "categorical:4 can have: direct", "two values"]);
    fails("chain:3x3", request(&["gumbel-softmax"]), &["chain:3x3", "rloo"]);
    fails("categorical:4", request(&["direkt"]), &["did you mean direct"]);
    fails("categorical:4", request(&["direct:two-sidde"]), &["two-sidde", "did you mean two-sided"]);
    fails("categorical:4", request(&["direct:epsilon=-1"]), &["epsilon", "greater than 0"]);
    fails("categorical:4", request(&["rloo:kl"]), &["kl", "rloo"]);
    fails("categorical:4", request(&["rloo:samples=1"]), &["samples", "at least 2"]);
    fails("categorical:4", request(&["rloo:samples=x"]), &["samples", "1 to 10000"]);
    for layers in [false, true] {
        let request = Request { layers, draws: 4, ..request(&["direct"]) };
        fails("permutation:9", request, &["permutation:9", "32768"]);
    }
}

#[test]
fn pictures_have_a_curve_for_each() {
    let found = lines("categorical:4", &request(&["direct", "gumbel-softmax", "rloo", "exact"])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("figure.svg");
    draw(&path, "generated", &found).unwrap();
    let svg = std::fs::read_to_string(&path).unwrap();
    for part in ["generated", "bias", "standard deviation", "cosine", "epsilon, temperature", "rloo", "direct"] {
        assert!(svg.contains(part), "{part}");
    }
    assert!(draw(&folder.path().join("f.png"), "", &found).is_err());
}
