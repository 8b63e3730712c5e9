//! `bullion exec`: runs a program of a locked tree by the tree's own loader, as QEMU is run. Used for test tools, too.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use spec::Outcome;

use crate::args::{Arguments, Exec};
use crate::failure::Failure;
use crate::inputs;
use crate::tree;

pub(crate) fn run(arguments: &Arguments, verb: &Exec) -> Result<u8, Failure> {
    let loaded = inputs::recipe(&verb.recipe)?;
    let lock = inputs::lock(&inputs::lock_path(&verb.recipe), &verb.recipe, &loaded.recipe)?;
    let Some(path) = loaded.recipe.programs.get(&verb.program) else {
        let known: Vec<&str> = loaded.recipe.programs.keys().map(String::as_str).collect();
        return Err(Failure::new(
            Outcome::Usage,
            format!("{} has no program \"{}\"", verb.recipe.display(), verb.program),
        )
        .with_hint(format!("it has: {}", known.join(", "))));
    };
    let store = inputs::open_store(arguments)?;
    let tree = tree::unpacked(&loaded.recipe, &lock, &store)?;
    // The tree must outlive this process image: its hold is a lock on an open file, which exec would close. Nothing but
    // `cache prune` removes trees, and a program that has started keeps the files it has open.
    let root = tree.root();
    let mut command = Command::new(root.join(tree::LOADER));
    command.arg("--library-path").arg(tree::library_path(&root)).arg(tree.path(path)).args(&verb.arguments);
    let error = command.exec();
    Err(Failure::new(Outcome::HostCannot, format!("starting {}: {error}", tree.path(path).display())))
}
