//! Who made the outdated calls of the window, for each source.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::call::Caller;

/// What changed for one caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerChange {
    /// The caller.
    pub caller: Arc<Caller>,
    /// Calls to add to the window, or to take from it.
    pub window: i64,
}

/// The callers of one source; none without calls in the window.
#[derive(Default)]
pub(crate) struct Callers(HashMap<Arc<Caller>, i64>);

impl Callers {
    pub(super) fn apply(&mut self, changes: Vec<CallerChange>) {
        for CallerChange { caller, window } in changes {
            let calls = self.0.entry_ref(&caller).or_default();
            *calls += window;
            if *calls == 0 {
                self.0.remove(&caller);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<Caller>, i64)> {
        self.0.iter().map(|(caller, calls)| (caller, *calls))
    }
}
