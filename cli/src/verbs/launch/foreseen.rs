//! What the TEE should measure of a launch, found out while QEMU is started, or before that where it is needed sooner.

use std::cell::OnceCell;
use std::fmt;

use launcher::Image;
use launcher::launch::{Later, Refusal};
use spec::Outcome;
use spec::vm::Vm;

use super::expected::Expected;
use crate::failure::Failure;

/// Of one launch.
pub(super) struct Foreseen<'a> {
    vm: &'a Vm,
    image: &'a Image,
    expected: OnceCell<Option<Expected>>,
}

impl<'a> Foreseen<'a> {
    /// Of which nothing is known yet.
    pub(super) fn new(vm: &'a Vm, image: &'a Image) -> Self {
        Self { vm, image, expected: OnceCell::new() }
    }

    /// Finds it out now, and lets `more` be added where there is any.
    pub(super) fn now(&self, more: impl FnMut(&mut Expected)) -> Result<(), Failure> {
        let mut expected = Expected::of_launch(self.vm, self.image)?;
        expected.iter_mut().for_each(more);
        let _ = self.expected.set(expected);
        Ok(())
    }

    /// What is known by now.
    pub(super) fn expected(&self) -> Option<&Expected> {
        self.expected.get()?.as_ref()
    }

    /// Whether there will be something before the guest runs.
    pub(super) fn is_to_come(&self) -> bool {
        self.expected.get().is_none() && Expected::can_be(self.vm, self.image)
    }
}

impl fmt::Debug for Foreseen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Foreseen").field(&self.expected().map(Expected::measurement)).finish()
    }
}

impl Later for Foreseen<'_> {
    fn find_out(&self) -> Result<(String, String), Refusal> {
        if self.expected.get().is_none() {
            self.now(|_| {}).map_err(refusal)?;
        }
        let missing = || refusal(Failure::new(Outcome::Internal, "there is no prediction of what the TEE measures"));
        self.expected().map(Expected::measurement).ok_or_else(missing)
    }
}

fn refusal(Failure { outcome, messages, hint }: Failure) -> Refusal {
    Refusal { outcome, message: messages.join(": "), hint }
}
