//! Whether the past is as it was written, and how a word is taken out of it without breaking that promise.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::error::LedgerError;
use super::events::{self, kind};
use super::{Ledger, tables};

/// What a walk along the chain found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Audit {
    /// How many events were walked, up to and with the broken one.
    pub events: u64,
    /// How many of them had their content redacted.
    pub redacted: u64,
    /// The hash of the last sound event: kept elsewhere, it shows later whether the end was cut off.
    pub head: Option<String>,
    /// The first event that is not as it was written.
    pub broken: Option<BrokenLink>,
}

/// An event that is not as it was written.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct BrokenLink {
    /// Its number.
    pub seq: i64,
    /// What is wrong with it.
    pub why: String,
}

impl Ledger {
    /// Walks the whole chain.
    pub fn audit(&self) -> Result<Audit, LedgerError> {
        self.read(|connection| {
            let redactions = redactions(connection)?;
            let mut audit = Audit { events: 0, redacted: 0, head: None, broken: None };
            let mut query = connection.prepare("SELECT * FROM events ORDER BY seq")?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                audit.events += 1;
                let seq: i64 = row.get("seq")?;
                let prev: String = row.get("prev")?;
                let hash: String = row.get("hash")?;
                let (at, kind): (String, String) = (row.get("at")?, row.get("kind")?);
                let (subject, content_hash): (String, String) = (row.get("subject")?, row.get("content_hash")?);
                let content = events::sha256(row.get_ref("content")?.as_bytes().map_err(rusqlite::Error::from)?);
                let redaction = redactions.get(&seq);
                let why = if seq.cast_unsigned() != audit.events {
                    Some(format!("event {} is missing before it", audit.events))
                } else if prev != audit.head.as_deref().unwrap_or_default() {
                    Some("it does not follow the event before it".to_owned())
                } else if hash != events::link(&prev, seq, &at, &kind, &subject, &content_hash) {
                    Some("its time, kind, subject or hash was changed".to_owned())
                } else if content != content_hash && redaction != Some(&content) {
                    Some("its content was changed".to_owned())
                } else {
                    None
                };
                if let Some(why) = why {
                    audit.broken = Some(BrokenLink { seq, why });
                    break;
                }
                audit.redacted += u64::from(content != content_hash);
                audit.head = Some(hash);
            }
            Ok(audit)
        })
    }

    /// Takes the words out of an event, for good: the file keeps no copy. That it was done, and why, is an event too.
    ///
    /// What stays is what the tables need: how a run ended and when, what a failure's fingerprint is made of. The
    /// reason stays for ever; it should not repeat what is taken out.
    pub fn redact(&self, seq: i64, why: &str) -> Result<(), LedgerError> {
        self.write(|tx| {
            let event = events::at(tx, seq)?;
            if event.kind == kind::REDACTED {
                return Err(LedgerError::Refused(format!(
                    "event {seq} is itself a redaction, and those stay: they are how the audit knows that all is well"
                )));
            }
            let mut content = json!({ "redacted": why });
            for key in kind::kept(&event.kind) {
                if let Some(value) = event.content.get(key) {
                    content[key] = value.clone();
                }
            }
            let text = content.to_string();
            let reason = json!({ "why": why, "content_hash": events::sha256(text.as_bytes()) });
            events::record(tx, kind::REDACTED, &seq.to_string(), reason)?;
            tx.execute("UPDATE events SET content = ? WHERE seq = ?", (text, seq))?;
            tables::rebuild(tx)
        })?;
        // Until the log is folded back into the file, the words are still in it.
        self.fold()
    }
}

/// What each redacted event's content must hash to now; the last redaction of an event counts.
fn redactions(connection: &rusqlite::Connection) -> Result<HashMap<i64, String>, LedgerError> {
    let mut query = connection.prepare("SELECT * FROM events WHERE kind = ? ORDER BY seq")?;
    let mut redactions = HashMap::new();
    for event in query.query_map([kind::REDACTED], events::event)? {
        let event = event?;
        if let (Ok(seq), Some(hash)) =
            (event.subject.parse(), event.content.get("content_hash").and_then(Value::as_str))
        {
            redactions.insert(seq, hash.to_owned());
        }
    }
    Ok(redactions)
}
