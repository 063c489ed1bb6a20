//! System files: read at the start and at every reload, where the last good one must survive any other.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use pratfall::config::System;
use pratfall_fuzz::{document, variables};

fuzz_target!(|text: &str| {
    document(text, |text| {
        let (system, warnings) = System::parse("fuzzed.yaml", text, &variables)?;
        assert!(!system.listeners.is_empty(), "nothing would be served");
        assert!((1..=256).contains(&system.workers));
        let names: BTreeSet<_> = system.listener_names().into_iter().collect();
        assert_eq!(names.len(), system.listeners.len(), "a name is one listener");
        for listener in &system.listeners {
            assert!(listener.targets().next().is_some(), "`{}` leads nowhere", listener.name);
            assert!(system.listener(&listener.name).is_some());
        }
        system.files();
        Ok((format!("{system:?}"), warnings))
    });
});
