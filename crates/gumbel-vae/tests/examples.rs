//! The examples do what they say.

#[path = "../examples/dots.rs"]
mod dots;

#[test]
fn the_subset_latent_learns_to_draw_with_dots() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("dots.png");
    let [first, last] = dots::run(150, 500, &out).unwrap();
    assert!(last < 0.8 * first, "{first} to {last}");
    assert!(out.exists());
}
