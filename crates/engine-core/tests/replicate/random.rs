//! Any changes between two images, any of them as base: the copy is whole, and asks for no more than
//! an image without a base would.

use std::fs;
use std::path::PathBuf;

use holdfast_engine_core::manifest::Manifest;
use proptest::prelude::*;

use crate::kit::{self, State, Tree};
use crate::wire::{copy, pools};

/// A change of the tree: what is done, where, and with which content.
#[derive(Clone, Debug)]
enum Step {
    Write(u8, u8, u16),
    Remove(u8, u8),
    /// A directory goes into another, with all that is in it.
    Move(u8, u8),
    Empty(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6_u8, 0..8_u8, 0..9000_u16).prop_map(|(dir, file, size)| Step::Write(dir, file, size)),
        1 => (0..6_u8, 0..8_u8).prop_map(|(dir, file)| Step::Remove(dir, file)),
        1 => (0..6_u8, 0..6_u8).prop_map(|(dir, to)| Step::Move(dir, to)),
        1 => (0..6_u8).prop_map(Step::Empty),
    ];
    proptest::collection::vec(step, 1..12)
}

fn directory(tree: &Tree, number: u8) -> PathBuf {
    let path = tree.path().join(format!("d{}", number / 3)).join(format!("e{number}"));
    fs::create_dir_all(&path).unwrap();
    path
}

fn apply(tree: &Tree, step: &Step, seed: u64) {
    match step {
        Step::Write(dir, file, size) => {
            let content = kit::noise(usize::from(*size), seed % 40);
            fs::write(directory(tree, *dir).join(format!("f{file}")), content).unwrap();
        }
        Step::Remove(dir, file) => {
            let _ = fs::remove_file(directory(tree, *dir).join(format!("f{file}")));
        }
        Step::Move(dir, to) => {
            let to = directory(tree, *to).join(format!("moved {seed}"));
            // Not into itself.
            let _ = fs::rename(directory(tree, *dir), to);
        }
        Step::Empty(dir) => fs::remove_dir_all(directory(tree, *dir)).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_copy_is_whole_whatever_changed_and_whatever_the_base_is(
        rounds in proptest::collection::vec((steps(), any::<prop::sample::Index>()), 2..5),
    ) {
        let (pools, tree) = (pools(), Tree::tiny());
        let mut images: Vec<(Manifest, State)> = Vec::new();
        let mut seed = 0;
        for (steps, base) in &rounds {
            for step in steps {
                seed += 1;
                apply(&tree, step, seed);
            }
            let image = kit::back_up(&pools.source, &tree).unwrap();
            let base = (!images.is_empty()).then(|| base.get(&images).0.clone());
            let asked = copy(&pools, &image, base.as_ref()).asked();
            kit::assert_restored(&pools.target, &image, &tree.state(), "right after it came");
            // As if nobody knew of a base.
            pools.target.expire(&image.id).unwrap();
            let again = copy(&pools, &image, None);
            prop_assert!(asked <= again.asked());
            prop_assert_eq!(again.sent(), 0);
            images.push((image, tree.state()));
        }
        for (image, state) in &images {
            kit::assert_restored(&pools.target, image, state, "at the end");
        }
        prop_assert_eq!(kit::check(&pools.target).unwrap(), []);
        prop_assert_eq!(kit::stored_twice(&pools.target), []);
    }
}

#[test]
fn of_a_large_directory_in_which_little_changed_little_is_asked_for() {
    let (pools, tree) = (pools(), Tree::new());
    let many = tree.path().join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..20_000 {
        fs::write(many.join(format!("file {number:05}")), b"").unwrap();
    }
    let first = kit::back_up(&pools.source, &tree).unwrap();
    let whole = copy(&pools, &first, None).asked();
    assert!(whole > 60, "{whole} chunks: leaves, and a node above them");
    fs::write(many.join("file 07777"), b"no more empty").unwrap();
    fs::remove_file(many.join("file 13333")).unwrap();
    fs::write(many.join("file 20001"), b"at the end").unwrap();
    let second = kit::back_up(&pools.source, &tree).unwrap();
    let changed = copy(&pools, &second, Some(&first)).asked();
    assert!(changed < 20, "{changed} chunks were asked for");
    kit::assert_restored(&pools.target, &second, &tree.state(), "");
}
