//! The documents that people copy. Experiments are read without a problem or a warning, can be conducted by this version,
//! say what they are for, and are long enough to answer; so are the system files that are deployed.

use std::path::Path;

use pratfall::config::System;
use pratfall::experiment::{Experiment, Length};
use pratfall::lab::{plan, preflight};

/// Requests of one second at the slice, as a middling shop has them; own traffic says its own.
const ORDINARY: f64 = 100.0;

#[test]
fn every_shipped_experiment_can_be_copied_as_it_stands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let readme = std::fs::read_to_string(folder.join("README.md")).expect("the experiments have a README");
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let mut found = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let name = file.file_stem().expect("a name").to_string_lossy();
        let text = std::fs::read_to_string(file).expect("it can be read");
        let (experiment, warnings) = Experiment::parse(&name, &text, &|_| None)
            .unwrap_or_else(|problems| panic!("{name} is refused:\n{problems}"));
        assert!(warnings.is_empty(), "{name} has warnings:\n{warnings}");
        assert_eq!(preflight::not_yet(&experiment), [""; 0], "{name}");
        assert_eq!(experiment.name, name, "a file is called like its experiment");
        assert!(readme.contains(&format!("[{name}]({name}.yaml)")), "{name} is not in the table of the README");
        for words in ["# Teaches: ", "\n# Use it: ", "\n# A typical weakness: ", "\n# To make it yours: "] {
            assert!(text.contains(words), "{name} does not say `{}`", words.trim());
        }
        long_enough(&experiment);
        found += 1;
    }
    assert!(found >= 6, "only {found} experiments were found");
}

fn long_enough(experiment: &Experiment) {
    // Units that are people or addresses count once: how many there are is not a matter of the rate.
    if experiment.slice.by.is_sticky() {
        return;
    }
    let rate = experiment.traffic.as_ref().and_then(|traffic| traffic.rate).map_or(ORDINARY, |rate| rate.per_second());
    let needs = plan::plan(experiment, |_| None, Some(rate)).expect("it has bounds").time.expect("a rate is known");
    let Length::Fixed(inject) = experiment.phases.inject else { return };
    assert!(inject.get() >= needs, "{} needs {needs:?} at {rate}/s and has {inject}", experiment.name);
}

/// The YAML of a README.
fn examples(readme: &str) -> impl Iterator<Item = &str> {
    readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

#[test]
fn every_shipped_system_file_can_be_served_as_it_stands() {
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the file is there")
    };
    let readme = read("experiments/README.md");
    let mut files = vec![
        ("deploy/docker/pratfall.yaml", read("deploy/docker/pratfall.yaml")),
        ("deploy/kubernetes/pratfall.yaml", read("deploy/kubernetes/pratfall.yaml")),
    ];
    files.extend(examples(&readme).map(|text| ("experiments/README.md", text.to_owned())));
    assert_eq!(files.len(), 3);
    for (name, text) in files {
        let (system, warnings) =
            System::parse(name, &text, &|_| None).unwrap_or_else(|problems| panic!("{name} is refused:\n{problems}"));
        assert!(warnings.is_empty(), "{name} has warnings:\n{warnings}");
        assert!(system.listener("front").is_some(), "{name}");
        assert!(!system.limits.armed(), "{name}: whoever deploys it decides what may be injected");
    }
}
