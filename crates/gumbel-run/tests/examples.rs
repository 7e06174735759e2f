//! The examples do what they say.

#![cfg(feature = "burn")]

#[path = "../examples/dots.rs"]
mod dots;

#[test]
fn the_subset_latent_learns_to_draw_with_dots() {
    let folder = tempfile::tempdir().unwrap();
    let small = [("train-limit", "500"), ("eval-limit", "50"), ("eval-every", "1")];
    let summary = dots::run(folder.path(), &[&small[..], &[("epochs", "12")]].concat()).unwrap();
    let metrics = gumbel_run::stored::read_metrics(folder.path()).unwrap();
    let first = metrics.iter().find(|m| m.split == "test").unwrap().bound;
    assert!(summary.final_test.bound < 0.8 * first, "{first} to {}", summary.final_test.bound);
    assert_eq!((summary.latent.as_str(), summary.engine.as_str()), ("dots:12", "autodiff"));
    for picture in ["samples.png", "reconstructions.png", "curves.svg"] {
        assert!(folder.path().join(picture).exists());
    }

    // Its own estimator trains too.
    let own = [("estimator", "leave-one-out"), ("samples", "4"), ("epochs", "3")];
    let summary = dots::run(folder.path(), &[&small[..], &own].concat()).unwrap();
    assert!(summary.final_test.bound < first, "{first} to {}", summary.final_test.bound);
}
