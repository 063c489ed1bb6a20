//! A report as one page of HTML: no script, nothing loaded from elsewhere, legible on paper, in the dark and on a phone.
//!
//! Its content security policy is `default-src 'none'; style-src 'unsafe-inline'; img-src data:`. Everything that a
//! document or a caller named is escaped by the template.

use askama::Template;

use super::chart::{HEIGHT, WIDTH};
use super::page::{Block, Look, Page};
use super::words;
use super::{Ending, Report};

#[derive(Debug, Template)]
#[template(path = "report.html")]
struct Html {
    page: Page,
    engine: String,
}

/// The report as a page that stands alone.
pub fn render(report: &Report) -> String {
    let page = Page::of(report);
    let engine = super::page::line(&report.replay.engine, 60);
    Html { page, engine }.render().expect("writing to a string cannot fail")
}

/// A sign beside the word, so that the verdict does not hang on a colour.
fn sign(ending: &Ending) -> &'static str {
    match ending {
        Ending::Held => "✓",
        Ending::Broken => "✗",
        Ending::Inconclusive => "?",
        Ending::Invalid => "!",
        Ending::Halted => "■",
    }
}
