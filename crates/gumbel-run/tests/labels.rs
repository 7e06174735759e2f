//! Labels: which images have one, what training sees of them, and that a run with labels is one like any other.

mod common;

use common::{Killed, figures, same};
use gumbel_data::{Attributes, Dataset, Images, Split};
use gumbel_run::evaluate::{Protocol, evaluate};
use gumbel_run::folder::{Files, Start};
use gumbel_run::images::SplitImages;
use gumbel_run::labels::{self, Labelled};
use gumbel_run::train::{Observer, Outcome, Quiet, train};
use gumbel_run::{Config, Registry, stored};
use std::fs;

/// A small run on glyphs: 400 images, three epochs of four steps.
fn config(given: &[(&str, &str)]) -> Config {
    let small = [
        ("latent", "categorical:10"),
        ("hidden", "16"),
        ("train-limit", "400"),
        ("eval-limit", "100"),
        ("eval-every", "1"),
        ("checkpoint-every", "3"),
    ];
    Config::new(&Registry::standard(), &[&small, given].concat()).unwrap()
}

fn refusal(given: &[(&str, &str)]) -> String {
    let error = Config::new(&Registry::standard(), given).unwrap_err();
    assert!(error.is_usage(), "{error}");
    error.to_string()
}

fn data() -> Dataset {
    gumbel_data::glyphs(0, [400, 100, 100]).unwrap()
}

fn drawn(given: &[(&str, &str)]) -> Labelled {
    labels::draw(&config(given), &data(), 400).unwrap().unwrap()
}

#[test]
fn as_many_of_each_class_are_drawn_by_a_seed_of_their_own() {
    let found = drawn(&[("labels", "57"), ("epochs", "3")]);
    assert_eq!((found.images.len(), found.known.len()), (57, 57));
    assert!(found.images.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
    let truth = data().train.labels().unwrap().to_vec();
    let mut counts = [0; 10];
    for (image, label) in found.images.iter().zip(&found.known) {
        assert_eq!(u32::from(truth[*image as usize]), *label);
        counts[*label as usize] += 1;
    }
    assert_eq!(counts, [6, 6, 6, 6, 6, 6, 6, 5, 5, 5]);
    assert_eq!(found, drawn(&[("labels", "57"), ("seed", "9")]), "not by the seed");
    assert_ne!(found, drawn(&[("labels", "57"), ("label-draw", "1")]));
    assert_eq!(drawn(&[("labels", "all")]).images, (0..400).collect::<Vec<u32>>());
    assert_eq!(labels::draw(&config(&[]), &data(), 400).unwrap(), None);
    // Only of those that are trained on.
    let few = labels::draw(&config(&[("labels", "20")]), &data(), 100).unwrap().unwrap();
    assert!(few.images.iter().all(|image| *image < 100));
}

#[test]
fn labels_that_cannot_be_are_refused() {
    let refused = |given: &[(&str, &str)], count| {
        let error = labels::draw(&config(given), &data(), count).unwrap_err();
        assert!(error.is_usage(), "{error}");
        error.to_string()
    };
    let message = refused(&[("labels", "401")], 400);
    assert!(message.starts_with("labels = 401: expected at most 400"), "{message}");
    let message = refused(&[("labels", "9")], 400);
    assert!(message.starts_with("labels = 9: expected 0, all, or at least 10: an image of each class"), "{message}");
    let message = refused(&[("labels", "104")], 105);
    assert!(message.contains("has too few images for its share"), "{message}");
    for (latent, model) in [("categorical:9", "too few values"), ("binary:10", "no attributes")] {
        let message = refused(&[("labels", "20"), ("latent", latent)], 400);
        assert!(message.contains("no labels of glyphs are values of"), "{model}: {message}");
    }
    // Attributes that a structure cannot have.
    let attributes = Attributes::new(vec!["a".into(), "b".into()], vec![1, -1, 1, 1, -1, 1]).unwrap();
    let images = Images::new(28, 28, vec![0; 3 * 784], None).unwrap().with_attributes(Some(attributes)).unwrap();
    let data = Dataset { train: images, ..data() };
    let one = config(&[("latent", "subset:2,1"), ("attributes", "a,b"), ("labels", "all")]);
    let error = labels::draw(&one, &data, 3).unwrap_err();
    let expected =
        "labels = all: expected labels that subset:2,1 can have: image 1 of the training split has a 1, b 1: ";
    assert!(error.is_usage() && error.to_string().starts_with(expected), "{error}");
    let message = refusal(&[("labels", "many")]);
    assert!(message.contains("a number of images, all, or 0 for none"), "{message}");
    for wrong in ["phases", "phases:1", "phases:0,3", "phases:1,-1", "both", "phases:1,2,3"] {
        let message = refusal(&[("labels", "10"), ("supervision", wrong)]);
        assert!(message.starts_with(&format!("supervision = {wrong}: expected joint, or phases:A,B")), "{message}");
    }
    let message = refusal(&[("labels", "10"), ("supervision", "phases:2,3"), ("epochs", "4")]);
    assert!(message.contains("epochs = 4: expected 3"), "{message}");
    assert!(refusal(&[("attributes", " ,")]).starts_with("attributes =  ,: expected names between commas"));
}

/// Every labelled image once in a pass, in an order of its own, and what is known of it.
#[test]
fn a_pass_goes_over_all_labelled_images() {
    let mut found = drawn(&[("labels", "57")]);
    assert_eq!(found.batches(20), 3);
    let mut pass = |number: u64| -> Vec<u32> {
        let batches: Vec<_> = (3 * number..3 * number + 3).map(|b| found.batch(5, b, 20, false)).collect();
        let mut images = vec![];
        for (places, known) in batches {
            for (place, label) in places.iter().zip(known) {
                let at = found.images.iter().position(|image| image == place).unwrap();
                assert_eq!(found.known[at], label);
            }
            images.extend(places);
        }
        images
    };
    let (first, second) = (pass(0), pass(1));
    assert_ne!(first, second);
    for mut images in [first, second] {
        images.sort_unstable();
        assert_eq!(images, found.images);
    }
}

/// Sixteen images, of which three labels have twelve, three and one.
#[test]
fn a_balanced_pass_has_every_label_equally_often() {
    let label = |i: u32| if i < 12 { [0, 1] } else { [1, u32::from(i < 15)] };
    let mut found = Labelled::new((0..16).map(|i| 10 + i).collect(), (0..16).flat_map(label).collect());
    let mut pass = |number: u64| -> Vec<u32> {
        let batches = (4 * number..4 * number + 4).map(|b| found.batch(7, b, 5, true));
        let mut images = vec![];
        for (places, known) in batches {
            places.iter().zip(known.chunks(2)).for_each(|(place, y)| assert_eq!(y, label(place - 10)));
            images.extend(places);
        }
        images
    };
    let (mut seen, mut orders) = ([0; 16], vec![]);
    for number in 0..30 {
        let images = pass(number);
        assert_eq!(images.len(), 16);
        let mut times = [0; 16];
        images.iter().for_each(|place| times[*place as usize - 10] += 1);
        let of = [times[..12].iter().sum::<i32>(), times[12..15].iter().sum(), times[15]];
        assert!(of.iter().all(|count| [5, 6].contains(count)), "{of:?}");
        assert!(times[..12].iter().all(|t| *t <= 1) && times[12..15].iter().all(|t| [1, 2].contains(t)));
        seen.iter_mut().zip(times).for_each(|(all, t)| *all += t);
        orders.push(images);
    }
    assert!(seen.iter().all(|times| *times > 0), "every image has its turn: {seen:?}");
    assert_eq!(orders[0], pass(0));
    orders.sort();
    orders.dedup();
    assert_eq!(orders.len(), 30);
}

/// Stops after so many steps.
struct Stopped(u64);

impl Observer for Stopped {
    fn step(&mut self, _: usize, _: u64, _: u64) {
        self.0 -= 1;
    }
    fn stop(&mut self) -> bool {
        self.0 == 0
    }
}

#[test]
fn runs_with_labels_are_killed_and_resumed_with_the_same_bits() {
    let data = data();
    for given in [
        [("labels", "250"), ("supervision", "phases:4,2"), ("supervised-loss", "argmax")],
        [("labels", "50"), ("supervision", "joint"), ("supervised-loss", "cross-entropy")],
        [("labels", "50"), ("supervision", "joint"), ("supervised-loss", "fenchel-young")],
    ] {
        let epochs: &[_] = if given[1].1 == "joint" { &[("epochs", "2")] } else { &[] };
        let config = config(&[&given, epochs].concat());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let whole = train(&config, &data, &at("whole"), Start::Fresh, &mut Quiet).unwrap().summary.unwrap();
        assert!(whole.test.accuracy.is_some_and(|a| (0.0..=1.0).contains(&a)));
        for kill in [2, 5, 1, 3] {
            let run = || train(&config, &data, &at("killed"), Start::Resume, &mut Killed(kill));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err(), "kill {kill}");
        }
        train(&config, &data, &at("killed"), Start::Resume, &mut Quiet).unwrap();
        same(&at("whole"), &at("killed"));
        for steps in [1, 3] {
            let outcome = train(&config, &data, &at("stopped"), Start::Resume, &mut Stopped(steps)).unwrap();
            assert!(matches!(outcome, Outcome { summary: None, .. }));
        }
        train(&config, &data, &at("stopped"), Start::Resume, &mut Quiet).unwrap();
        same(&at("whole"), &at("stopped"));
        // What the labelled phase alone has taught is epoch 0; it is never the best.
        let first = figures(&at("whole")).remove(0);
        assert_eq!((first.epoch, first.step), if given[1].1 == "joint" { (1, 4) } else { (0, 0) });
        assert!(whole.best_epoch > 0);
        // Which images have a label stands in the folder.
        let text = fs::read_to_string(at("whole").join("labels.json")).unwrap();
        let stands: serde_json::Value = serde_json::from_str(&text).unwrap();
        let images = labels::draw(&config, &data, 400).unwrap().unwrap().images;
        assert_eq!(stands["images"], serde_json::json!(images));
    }
}

/// Nothing without labels behind the labelled passes: what they have taught is the model.
#[test]
fn labels_may_be_all_that_is_learned_from() {
    let (data, folder) = (data(), tempfile::tempdir().unwrap());
    let at = |name: &str| folder.path().join(name);
    let config = config(&[("labels", "250"), ("supervision", "phases:4,0")]);
    let whole = train(&config, &data, &at("whole"), Start::Fresh, &mut Quiet).unwrap().summary.unwrap();
    assert_eq!((whole.epochs, whole.best_epoch, whole.steps), (0, 0, 0));
    assert_eq!((whole.test.epoch, whole.test.bound), (0, whole.final_test.bound));
    for steps in [5, 3] {
        let outcome = train(&config, &data, &at("stopped"), Start::Resume, &mut Stopped(steps)).unwrap();
        assert!(outcome.summary.is_none());
    }
    train(&config, &data, &at("stopped"), Start::Resume, &mut Quiet).unwrap();
    same(&at("whole"), &at("stopped"));
    let mut open = stored::open(&Registry::standard(), &at("whole")).unwrap();
    let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
    let found = evaluate(&mut *open.engine, &images, Split::Test, 100, None, &Protocol::new(&config)).unwrap();
    assert_eq!(found.bound, whole.test.bound);
    for without in [&[("epochs", "0")][..], &[("epochs", "0"), ("labels", "20")], &[("supervision", "phases:4,0")]] {
        let message = refusal(without);
        assert!(message.starts_with("epochs = 0: expected at least 1"), "{message}");
    }
}

/// Other labels than those that were drawn change no bit of the model.
#[test]
fn training_sees_no_other_label() {
    let config = config(&[("labels", "50"), ("epochs", "2")]);
    let data = data();
    let known = labels::draw(&config, &data, 400).unwrap().unwrap().images;
    let turned = |images: &Images, keep: &[u32]| {
        let labels = images.labels().unwrap().iter().enumerate();
        let labels = labels.map(|(i, y)| if keep.contains(&(i as u32)) { *y } else { 9 - *y }).collect();
        Images::new(images.height(), images.width(), images.pixels().to_vec(), Some(labels)).unwrap()
    };
    let mut other = data.clone();
    other.valid = turned(&data.valid, &[]);
    other.test = turned(&data.test, &[]);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    train(&config, &data, &at("true"), Start::Fresh, &mut Quiet).unwrap();
    train(&config, &other, &at("held-out"), Start::Fresh, &mut Quiet).unwrap();
    let best = |name: &str| fs::read(Files::new(&at(name)).best()).unwrap();
    assert!(best("true") == best("held-out"));
    let accuracy = |name: &str| figures(&at(name)).last().unwrap().accuracy;
    assert_ne!(accuracy("true"), accuracy("held-out"));
    // Wrong labels wherever they leave the draw as it is, which is balanced by the true ones: of most images.
    let mut wrong: Vec<u32> = vec![];
    for image in (0..400).filter(|image| !known.contains(image)) {
        wrong.push(image);
        let keep: Vec<u32> = (0..400).filter(|i| !wrong.contains(i)).collect();
        other.train = turned(&data.train, &keep);
        if labels::draw(&config, &other, 400).unwrap().unwrap().images != known {
            wrong.pop();
        }
    }
    assert!(wrong.len() > 200, "{}", wrong.len());
    let keep: Vec<u32> = (0..400).filter(|i| !wrong.contains(i)).collect();
    other.train = turned(&data.train, &keep);
    train(&config, &other, &at("train"), Start::Fresh, &mut Quiet).unwrap();
    assert!(best("true") == best("train"));
    // A label that is drawn counts.
    let mut one = data.clone();
    let wrong: Vec<u32> = (0..400).filter(|i| *i != known[7]).collect();
    one.train = turned(&data.train, &wrong);
    train(&config, &one, &at("one"), Start::Fresh, &mut Quiet).unwrap();
    assert!(best("true") != best("one"));
}

/// Labelled steps see the grey pixels, all others and every evaluation rounded ones; where pixels are black and white
/// that is the same.
#[test]
fn labelled_images_may_be_grey() {
    let (data, folder) = (data(), tempfile::tempdir().unwrap());
    let faded = |images: &Images| {
        let fade = |(i, p): (usize, &u8)| if *p > 127 { 255 - (i % 100) as u8 } else { (i % 90) as u8 };
        let pixels = images.pixels().iter().enumerate().map(fade).collect();
        Images::new(images.height(), images.width(), pixels, images.labels().map(<[u16]>::to_vec)).unwrap()
    };
    let sharp = |images: &Images| {
        let pixels = images.pixels().iter().map(|p| if *p > 127 { 255 } else { 0 }).collect();
        Images::new(images.height(), images.width(), pixels, images.labels().map(<[u16]>::to_vec)).unwrap()
    };
    let parts = |of: &dyn Fn(&Images) -> Images| [of(&data.train), of(&data.valid), of(&data.test)];
    let [grey, clear] =
        [parts(&faded), parts(&sharp)].map(|p| Dataset::new("made", "here", data.classes.clone(), p).unwrap());
    for schedule in ["phases:2,1", "joint"] {
        let run = |name: &str, data: &Dataset, pixels: &'static str| {
            let given = [
                ("labels", "all"),
                ("supervision", schedule),
                ("labels-binarization", pixels),
                ("continuous", "rows:2"),
                ("epochs", "1"),
            ];
            let at = folder.path().join(format!("{name}-{}", &schedule[..5]));
            train(&config(&given), data, &at, Start::Fresh, &mut Quiet).unwrap();
            // Behind the header, which has the settings: the parameters.
            let file = fs::read(Files::new(&at).best()).unwrap();
            let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
            file[8 + header..].to_vec()
        };
        let rounded = run("rounded", &grey, "same");
        assert!(rounded == run("clear", &clear, "same") && rounded == run("sharp", &clear, "grey"), "{schedule}");
        assert!(rounded != run("grey", &grey, "grey"), "{schedule}");
    }
    // The discrete engine reads zeros and ones.
    let engine =
        |pixels| config(&[("labels", "all"), ("labels-binarization", pixels), ("engine", "fused")]).check_engine();
    assert!(engine("same").is_ok());
    let message = engine("grey").unwrap_err().to_string();
    assert!(message.contains("binary images, in labelled steps too"), "{message}");
}

/// Both schedules and both losses find the classes from few labels, on threads as they come.
#[test]
fn labels_teach_the_classes() {
    let data = data();
    for given in [
        [("labels", "100"), ("supervision", "phases:40,2"), ("supervised-loss", "argmax"), ("epochs", "2")],
        [("labels", "100"), ("supervision", "joint"), ("supervised-loss", "argmax"), ("epochs", "40")],
        [("labels", "100"), ("supervision", "joint"), ("supervised-loss", "cross-entropy"), ("epochs", "40")],
    ] {
        let config = config(&[&given[..], &[("hidden", "64"), ("eval-every", "100")]].concat());
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let path = folder.path().join(name);
            let found = pool.install(|| train(&config, &data, &path, Start::Fresh, &mut Quiet).unwrap().summary);
            (found.unwrap().test, fs::read(Files::new(&path).best()).unwrap())
        };
        let ((one, best), (three, again)) = (run("one", 1), run("three", 3));
        assert!(best == again && one.accuracy == three.accuracy, "threads");
        assert!(one.accuracy.unwrap() > 0.5, "{given:?}: {:?}", one.accuracy);
        let each = &one.accuracies;
        let mean = each.iter().flatten().sum::<f64>() / each.len() as f64;
        assert!((mean - one.accuracy.unwrap()).abs() < 1e-9, "the classes of the test images are balanced");
        // The same from outside.
        let mut open = stored::open(&Registry::standard(), &folder.path().join("one")).unwrap();
        let images = SplitImages::new(&data, Split::Test, config.binarization(), 0);
        let known = labels::known(&config, &data.test).unwrap();
        let protocol = Protocol::new(&config);
        let found = evaluate(&mut *open.engine, &images, Split::Test, 100, Some(&known), &protocol).unwrap();
        assert_eq!(Some(found.agreement.unwrap().accuracy), one.accuracy);
    }
}

/// The validation images are trained on, and choose nothing: the last epoch is the one that counts.
#[test]
fn training_on_all_images_reports_the_last_epoch() {
    let own = [("train-limit", "0"), ("eval-limit", "0"), ("lr", "1"), ("epochs", "30")];
    let folder = tempfile::tempdir().unwrap();
    let outcome = |on: &'static str| {
        let config = config(&[&own[..], &[("train-on", on)]].concat());
        let mut data = data();
        if config.trains_on_all() {
            data.train = data.train.followed_by(&data.valid).unwrap();
        }
        let at = folder.path().join(on);
        let summary = train(&config, &data, &at, Start::Fresh, &mut Quiet).unwrap().summary.unwrap();
        (summary, figures(&at).last().unwrap().step)
    };
    let ((held_out, few), (all, more)) = (outcome("train"), outcome("all"));
    assert!(held_out.best_epoch < 30, "a rate at which later epochs are worse: {}", held_out.best_epoch);
    assert_eq!((all.best_epoch, all.train_on.as_str(), held_out.train_on.as_str()), (30, "all", "train"));
    assert_eq!(all.test.bound, all.final_test.bound);
    assert_eq!((few, more), (30 * 4, 30 * 5), "steps of a hundred images");
}

/// The whole glyphs, as the program loads them.
#[test]
fn all_images_are_those_of_both_splits() {
    let load = |on: &'static str| {
        let config = Config::new(&Registry::standard(), &[("dataset", "glyphs"), ("train-on", on)]).unwrap();
        config.load(&gumbel_data::Source::default(), &mut |_| ()).unwrap()
    };
    let (train, all) = (load("train"), load("all"));
    let count = train.train.count();
    assert_eq!(all.train.count(), count + train.valid.count());
    assert_eq!(all.train.image(count), train.valid.image(0));
}
