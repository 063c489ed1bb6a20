//! A report as Markdown for people who read it where they work: a job's summary, a pull request, a wiki.
//!
//! GitHub's dialect: tables, and details to unfold. Names come from documents that anybody may write, so that whatever
//! means something in Markdown or HTML is escaped, and nobody is mentioned by accident.

use std::fmt::Write as _;

use super::chart::Chart;
use super::page::{Block, Cell, Look, Page, Table, Term, WhyLine};
use super::words;
use super::{Ending, Report};

/// What people see where they should write.
const BLANK: &str = r"\_\_\_\_\_\_\_\_\_\_\_\_\_\_\_\_";

/// The report as Markdown.
pub fn render(report: &Report) -> String {
    let page = Page::of(report);
    let mut out = String::new();
    paragraph(&mut out, &format!("# {}", escape(&page.title)));
    paragraph(&mut out, &format!("## {} {}", sign(page.ending), page.ending.word().to_uppercase()));
    paragraph(&mut out, page.meaning);
    paragraph(&mut out, &format!("**We expected** {}", say(&page.expected)));
    paragraph(&mut out, &format!("**We saw** {}", say(&page.seen)));
    terms(&mut out, &page.facts);
    for section in &page.sections {
        paragraph(&mut out, &format!("### {}", section.title));
        for block in &section.blocks {
            dress(&mut out, block);
        }
    }
    let end = out.trim_end().len();
    out.truncate(end);
    out.push('\n');
    out
}

/// A colour that survives where styles do not.
fn sign(ending: Ending) -> &'static str {
    match ending {
        Ending::Held => "🟢",
        Ending::Broken => "🔴",
        Ending::Inconclusive => "🟡",
        Ending::Invalid => "🟣",
        Ending::Halted => "🔵",
    }
}

fn dress(out: &mut String, block: &Block) {
    match block {
        Block::Text(text) => paragraph(out, &say(text)),
        Block::Lead(text) => paragraph(out, &format!("**{}**", say(text))),
        Block::Small(text) => paragraph(out, &format!("<sub>{}</sub>", say(text))),
        Block::Terms(list) => terms(out, list),
        Block::Figures(figures) => {
            items(out, figures.iter().map(|it| format!("**{}: {}** {}", it.name, escape(&it.value), escape(&it.note))))
        }
        Block::Table(it) => measured(out, it),
        Block::List(texts) => items(out, texts.iter().map(|text| say(text))),
        Block::Notes(notes) => items(
            out,
            notes.iter().map(|note| {
                let mut text = format!("**{}**", say(&note.text));
                if !note.advice.is_empty() {
                    let _ = write!(text, "<br>Try: {}", say(&note.advice));
                }
                let _ = write!(text, "<br><sub><code>{}</code> {}</sub>", escape(&note.kind), say(&note.evidence));
                text
            }),
        ),
        Block::Command(text) => fence(out, "sh", text),
        Block::Document { summary, text } => {
            paragraph(out, &format!("<details>\n<summary>{summary}</summary>"));
            fence(out, "yaml", text);
            paragraph(out, "</details>");
        }
        Block::Chart(it) => chart(out, it),
        Block::Whys(lines) => whys(out, lines),
        Block::Blank(question) => paragraph(out, &format!("**{question}**\n\n{BLANK}")),
    }
}

fn paragraph(out: &mut String, text: &str) {
    out.push_str(text);
    out.push_str("\n\n");
}

fn items(out: &mut String, texts: impl Iterator<Item = String>) {
    for text in texts {
        let _ = writeln!(out, "- {text}");
    }
    out.push('\n');
}

fn terms(out: &mut String, terms: &[Term]) {
    items(out, terms.iter().map(|term| format!("**{}:** {}", term.name, say(&term.text))));
}

fn table(out: &mut String, head: &[String], figures: &[bool], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(out, "| {} |", head.join(" | "));
    let rule: Vec<_> = figures.iter().map(|figures| if *figures { "---:" } else { ":---" }).collect();
    let _ = writeln!(out, "| {} |", rule.join(" | "));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out.push('\n');
}

fn measured(out: &mut String, it: &Table) {
    let mut head: Vec<_> = it.head.iter().map(|head| escape(&head.text)).collect();
    let mut figures: Vec<_> = it.head.iter().map(|head| head.figures).collect();
    if !it.notes.is_empty() {
        head.push(it.notes.to_owned());
        figures.push(false);
    }
    let rows = it.rows.iter().map(|row| {
        let mut cells: Vec<_> = row.cells.iter().map(cell).collect();
        if !it.notes.is_empty() {
            cells.push(say(&row.note));
        }
        cells
    });
    table(out, &head, &figures, rows);
}

fn cell(cell: &Cell) -> String {
    let text = match cell.look {
        Look::Verdict(ending) => format!("{} {}", sign(ending), bold(&cell.text)),
        Look::Blank => return "&nbsp;".to_owned(),
        _ => say(&cell.text),
    };
    if cell.below.is_empty() { text } else { format!("{text}<br><sub>{}</sub>", escape(&cell.below)) }
}

fn bold(text: &str) -> String {
    format!("**{}**", escape(text))
}

/// The lines in block letters: a job's summary shows no drawings of ours.
fn chart(out: &mut String, chart: &Chart) {
    paragraph(out, &format!("**{}**<br>{}", escape(&chart.title), escape(&chart.summary)));
    let mut text = format!("{:11}", "");
    for (place, band) in chart.bands.iter().enumerate() {
        let gap = if place > 0 { "│" } else { "" };
        let name: String = band.name.chars().take(band.letters).collect();
        let _ = write!(text, "{gap}{name:<width$}", width = band.letters);
    }
    text.truncate(text.trim_end().len());
    for line in &chart.lines {
        let _ = write!(text, "\n{:<11}{}", line.arm, line.letters);
    }
    let top = chart.ticks.first().map(|tick| tick.0.as_str()).unwrap_or_default();
    let _ = write!(text, "\n▁ 0, █ {top}");
    for limit in &chart.limits {
        let _ = write!(text, "; allowed: {}", limit.text);
    }
    fence(out, "text", &text);
}

fn whys(out: &mut String, lines: &[WhyLine]) {
    for why in lines {
        let indent = "  ".repeat(why.depth);
        let _ = write!(out, "{indent}- **{}**", say(&why.question));
        match &why.answer {
            Some(answer) => {
                let _ = write!(out, "<br>{}", say(answer));
                if !why.evidence.is_empty() {
                    let _ = write!(out, " <sub>{}</sub>", say(&why.evidence));
                }
            }
            None => {
                let _ = write!(out, "<br>{BLANK}");
            }
        }
        out.push('\n');
    }
    out.push('\n');
}

/// A block that nothing in the text can close.
fn fence(out: &mut String, language: &str, text: &str) {
    let longest = text.split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let ticks = "`".repeat((longest + 1).max(3));
    paragraph(out, &format!("{ticks}{language}\n{text}\n{ticks}"));
}

/// A sentence, in which what stands between backticks is code.
fn say(text: &str) -> String {
    let piece = |(text, code)| if code { format!("<code>{}</code>", escape(text)) } else { escape(text) };
    words::pieces(text).into_iter().map(piece).collect()
}

/// A text that means nothing in Markdown nor in HTML, wherever it stands on a line.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    // Only the first characters of a block can make it a heading, a list, a rule or a quotation.
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let mut before = ' ';
    for (place, letter) in text.char_indices() {
        let rest = &text[place + letter.len_utf8()..];
        let ends = rest.is_empty() || rest.starts_with(' ');
        match letter {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            // An empty comment keeps a name from being notified, and is invisible.
            '@' => safe.push_str("@<!-- -->"),
            '\\' | '`' | '*' | '[' | ']' | '|' | '~' | '$' => safe.extend(['\\', letter]),
            // Within a word an underscore means nothing, and most names have some.
            '_' if before.is_alphanumeric() && rest.starts_with(char::is_alphanumeric) => safe.push(letter),
            '_' => safe.push_str(r"\_"),
            ':' if rest.starts_with("//") => safe.push_str(r"\:"),
            '.' if before.eq_ignore_ascii_case(&'w') => safe.push_str(r"\."),
            '#' | '-' | '=' if place == 0 => safe.extend(['\\', letter]),
            '+' if place == 0 && ends => safe.extend(['\\', letter]),
            '.' | ')' if digits > 0 && place == digits && ends => safe.extend(['\\', letter]),
            _ => safe.push(letter),
        }
        before = letter;
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_means_nothing_in_markdown_wherever_it_stands() {
        for (text, expected) in [
            ("plain words, 0.2 %", "plain words, 0.2 %"),
            ("| pipe", r"\| pipe"),
            ("``` fence", r"\`\`\` fence"),
            ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            ("&lt;", "&amp;lt;"),
            ("# heading", r"\# heading"),
            ("- item", r"\- item"),
            ("1. item", r"1\. item"),
            ("1.5 s", "1.5 s"),
            ("+98 pp", "+98 pp"),
            ("+ item", r"\+ item"),
            ("2.5 s or 1. item", "2.5 s or 1. item"),
            ("*a* _b_ c_d ~e~", r"\*a\* \_b\_ c_d \~e\~"),
            ("[x](javascript:alert(1))", r"\[x\](javascript:alert(1))"),
            ("https://example.org www.example.org", r"https\://example.org www\.example.org"),
            ("@everyone", "@<!-- -->everyone"),
            (r"a\", r"a\\"),
        ] {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn no_text_closes_the_block_it_stands_in() {
        let mut out = String::new();
        fence(&mut out, "yaml", "a: |\n  ```\n  </details>\n  `````\n");
        assert!(out.starts_with("``````yaml\n") && out.ends_with("\n``````\n\n"), "{out}");
    }
}
