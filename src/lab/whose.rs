//! Whose call a sighting is, as a run would tell it: by our mark, or by an id that came to the slice.

use std::collections::HashMap;

use crate::measure::{Arm, Note, Shown, Sighting};

/// A call, and what is known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'s> {
    pub(super) seen: &'s Sighting,
    /// The request that a run would know it by; else it belongs to none.
    pub(super) op: Option<u128>,
    /// Its ids are those of requests in several arms: a run would not know which.
    pub(super) ambiguous: bool,
}

/// The ids that came to the slice, and whose they are; nobody's where requests of several arms have them.
#[derive(Debug, Default)]
pub(super) struct Memory(HashMap<u64, (Option<Arm>, u128)>);

impl Memory {
    pub(super) fn of<'s>(slice: impl Iterator<Item = &'s Sighting>) -> Self {
        let mut memory = Self::default();
        for call in slice {
            let Some((arm, op)) = call.of else { continue };
            for shown in call.ids.iter().flatten() {
                let known = memory.0.entry(shown.id).or_insert((Some(arm), op));
                *known = (known.0.filter(|before| *before == arm), op);
            }
        }
        memory
    }

    /// What a run would know of a call.
    pub(super) fn call<'s>(&self, seen: &'s Sighting) -> Call<'s> {
        let mut call = Call { seen, op: seen.of.map(|(_, op)| op), ambiguous: false };
        let carrying = seen.ids.iter().flatten().filter(|shown| shown.carries);
        for (arm, op) in carrying.filter_map(|shown| self.0.get(&shown.id)) {
            match arm {
                Some(_) => call.op = call.op.or(Some(*op)),
                None => call.ambiguous = true,
            }
        }
        call.ambiguous &= call.op.is_none();
        call
    }

    /// All that tells whose a call is.
    pub(super) fn told(&self, seen: &Sighting) -> impl Iterator<Item = (Note, u128)> {
        let marked = seen.of.map(|(_, op)| (Note::ByBaggage, op));
        let known = |shown: &Shown| self.0.get(&shown.id).map(|(_, op)| (shown.by, *op));
        marked.into_iter().chain(seen.ids.iter().flatten().filter_map(known))
    }
}
