//! `pratfall schema`: the JSON Schemas of our documents, for editors.

use super::exit::{Exit, Usage};
use super::print;
use crate::config::schema::{Kind, schema};

const EXAMPLES: &str = "\
Examples:
  pratfall schema experiment > experiment.schema.json
  pratfall schema system";

/// Print the JSON Schema of a kind of document.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Schema {
    /// experiment, system or game_day; all of them, by kind, where nothing is said.
    kind: Option<String>,
}

impl Schema {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let kinds = [Kind::Experiment, Kind::System, Kind::GameDay];
        let value = match &self.kind {
            None => kinds
                .iter()
                .map(|kind| (kind.key().to_owned(), schema(*kind)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Some(word) => match kinds.iter().find(|kind| kind.key() == word) {
                Some(kind) => schema(*kind),
                None => {
                    return Err(
                        Usage(format!("there is no document `{word}`; write experiment, system or game_day")).into()
                    );
                }
            },
        };
        print(serde_json::to_string_pretty(&value)?);
        Ok(Exit::Done)
    }
}
