//! What was found: checks by source and place, written as text or as JSON from the same facts.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// The exporter works, but less well than it could, or not for long.
    Warning,
    /// The exporter does not work like this.
    Failed,
    /// Not tried, as another check failed before.
    Skipped,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Failed, Self::Skipped];

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Check {
    /// Its name, the same in text and JSON.
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    /// What was found, in words.
    pub(super) found: String,
    /// What to do about it.
    pub(super) hint: Option<String>,
    /// The same for machines.
    pub(super) facts: Map<String, Value>,
}

impl Check {
    pub(super) fn new(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict,
            found: found.into(),
            hint: None,
            facts: Map::new(),
        }
    }

    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, found)
    }

    pub(super) fn warning(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Warning, found)
    }

    pub(super) fn failed(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Failed, found)
    }

    /// What to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A fact for machines.
    pub(super) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }
}

/// The checks of one source in one place.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) source: String,
    pub(super) source_type: &'static str,
    /// The role that was assumed, if any.
    pub(super) role: Option<String>,
    /// The Region, once it is known; files have none.
    pub(super) region: Option<String>,
    pub(super) checks: Vec<Check>,
}

impl Section {
    pub(super) fn push(&mut self, check: Check) {
        self.checks.push(check);
    }

    /// Adds what was not tried, out of all that there is to try.
    pub(super) fn skip_the_rest(&mut self, names: &[&'static str]) {
        let failed = self.checks.iter().rev();
        let failed = failed.clone().find(|it| it.verdict == Verdict::Failed);
        let why = match failed {
            Some(check) => format!("not tried, as {} failed", check.name),
            None => "not tried".to_owned(),
        };
        for name in names {
            if self.checks.iter().all(|check| check.name != *name) {
                self.push(Check::new(name, Verdict::Skipped, why.clone()));
            }
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|check| check.verdict == Verdict::Failed)
    }

    /// Writes the section as text: a line for each check, and one more for a hint.
    pub(super) fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} ({})", self.source, self.source_type)?;
        if let Some(role) = &self.role {
            write!(out, " as {role}")?;
        }
        if let Some(region) = &self.region {
            write!(out, " in {region}")?;
        }
        writeln!(out)?;
        for check in &self.checks {
            let (verdict, name) = (check.verdict.word(), check.name);
            // What AWS tells may have lines.
            let found = check.found.split_whitespace().collect::<Vec<_>>().join(" ");
            writeln!(out, "  {verdict:<8} {name:<21} {found}")?;
            if let Some(hint) = &check.hint {
                writeln!(out, "           hint: {hint}")?;
            }
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            json!({"check": check.name, "verdict": check.verdict.word(), "found": check.found, "hint": check.hint,
                "facts": check.facts})
        });
        json!({"source": self.source, "type": self.source_type, "role": self.role, "region": self.region,
            "checks": checks.collect::<Vec<_>>()})
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Report(pub(super) Vec<Section>);

impl Report {
    /// How many checks came to a verdict.
    pub(super) fn number(&self, verdict: Verdict) -> usize {
        let checks = self.0.iter().flat_map(|section| &section.checks);
        checks.filter(|check| check.verdict == verdict).count()
    }

    /// The last line of the text.
    pub(super) fn summary(&self, out: &mut dyn Write) -> io::Result<()> {
        let numbers = Verdict::ALL.map(|it| format!("{} {}", self.number(it), it.word()));
        writeln!(out, "{}", numbers.join(", "))
    }

    /// Writes one JSON document.
    pub(super) fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let numbers = Verdict::ALL.map(|it| (it.word().to_owned(), self.number(it).into()));
        let sections = self.0.iter().map(Section::json).collect::<Vec<_>>();
        let document = json!({"summary": Map::from_iter(numbers), "sources": sections});
        serde_json::to_writer_pretty(&mut *out, &document)?;
        writeln!(out)
    }
}

/// Bytes for people.
#[expect(
    clippy::cast_precision_loss,
    reason = "shown with one digit after the point"
)]
pub(super) fn size(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(bits, _)| bytes >> bits > 0) {
        Some((bits, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << bits) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_their_unit() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(10 << 20), "10.0 MiB");
        assert_eq!(size(5 << 40), "5120.0 GiB");
    }

    #[test]
    fn what_was_not_tried_is_told_with_the_reason() {
        let mut section = Section {
            source: "logs".to_owned(),
            source_type: "logs_insights",
            role: None,
            region: Some("eu-west-1".to_owned()),
            checks: Vec::new(),
        };
        section.push(Check::ok("identity", "me"));
        section.push(Check::failed("log_group", "no\nsuch group").hint("make it"));
        section.skip_the_rest(&["identity", "log_group", "records"]);
        let mut text = Vec::new();
        section.text(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "logs (logs_insights) in eu-west-1\n  ok       identity              me\n  \
             failed   log_group             no such group\n           hint: make it\n  \
             skipped  records               not tried, as log_group failed\n"
        );
    }
}
