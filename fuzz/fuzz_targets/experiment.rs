//! Experiments, from whoever sends one: over the API, from a repository, by mistake.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pratfall::Experiment;
use pratfall::config::schema::Kind;
use pratfall::document::top_level_keys;
use pratfall_fuzz::{document, variables};

fuzz_target!(|text: &str| {
    document(text, |text| {
        let (experiment, warnings) = Experiment::parse("fuzzed.yaml", text, &variables)?;
        // What was accepted can be conducted: these are what a run relies on.
        let slice = &experiment.slice;
        assert!(!slice.treatment.is_empty() && slice.treatment.windows(2).all(|steps| steps[0] < steps[1]));
        assert!(slice.final_treatment().ratio() > 0.0);
        assert!(slice.final_treatment().ratio() + slice.control.ratio() <= 1.0 + 1e-6);
        assert!((1..=3).contains(&experiment.steady_state.len()), "one to three indicators");
        assert!(!experiment.inject.faults.is_empty());
        assert!(experiment.confidence.ratio() >= 0.5 && experiment.confidence.ratio() < 1.0);
        assert!(top_level_keys(text).iter().any(|key| key == "experiment"));
        assert_eq!(Kind::of("fuzzed.yaml", text).ok(), Some(Kind::Experiment));
        assert_eq!(experiment.document, text, "it is kept as it was read");
        // All but the text itself, which differs in whether a comment is above it.
        let said = format!("{:?}", pratfall::Experiment { document: String::new(), ..experiment });
        Ok((said, warnings))
    });
});
