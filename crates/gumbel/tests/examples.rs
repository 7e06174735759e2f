//! The examples do what they say.

#[path = "../examples/sort.rs"]
mod sort;

#[test]
fn the_permutation_latent_learns_to_sort() {
    let (_, before) = sort::run(0).unwrap();
    let (weight, after) = sort::run(300).unwrap();
    assert!(before < 0.2, "{before}");
    assert!(weight.is_sorted(), "{weight:?}");
    assert_eq!(after, 1.0);
}
