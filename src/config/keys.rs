//! Single values by their dotted key, each checked on its own. What is wrong is collected, and a valid
//! stand-in is returned, so that one mistake does not hide another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use config::{Value, ValueKind};

/// The longest duration.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// How alike two keys must be for one to be suggested for the other.
const ALIKE: f64 = 0.7;

/// One thing that is wrong, by the key it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    key: String,
    text: String,
}

impl Problem {
    /// A problem that is about no key.
    pub(super) fn bare(text: &str) -> Self {
        Self {
            key: String::new(),
            text: text.to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.key, self.text)
    }
}

/// The values of a file and the environment, and what was asked of them.
pub(super) struct Keys {
    /// How many tables each array of tables has.
    tables: BTreeMap<String, usize>,
    values: BTreeMap<String, Value>,
    known: BTreeSet<String>,
    ignored: Vec<String>,
    problems: BTreeSet<Problem>,
}

impl Keys {
    pub(super) fn new(table: HashMap<String, Value>) -> Self {
        let (mut values, mut tables) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in table {
            flatten(key, value, &mut values, &mut tables);
        }
        Self {
            tables,
            values,
            known: BTreeSet::new(),
            ignored: Vec::new(),
            problems: BTreeSet::new(),
        }
    }

    /// What is wrong, and every key that was asked for.
    pub(super) fn finish(mut self) -> (Vec<String>, Vec<String>) {
        let unknown: Vec<String> = self
            .values
            .keys()
            .filter(|key| !self.is_known(key))
            .cloned()
            .collect();
        for key in unknown {
            let suggestion = self
                .alike(&key)
                .map_or(String::new(), |alike| format!("; did you mean `{alike}`?"));
            let text = format!("{}: no such key{suggestion}", self.origin(&key));
            self.problem(Problem { key, text });
        }
        let problems = self.problems.iter().map(ToString::to_string).collect();
        (problems, self.known.into_iter().collect())
    }

    /// A text that `read` understands.
    pub(super) fn value<T>(
        &mut self,
        key: &str,
        default: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        let text = self.text(key).unwrap_or_else(|| default.to_owned());
        match read(&text) {
            Ok(value) => value,
            Err(rule) => {
                self.check(false, key, &rule);
                read(default).expect("every default is valid")
            }
        }
    }

    /// A duration.
    pub(super) fn duration(&mut self, key: &str, default: &str) -> Duration {
        self.value(key, default, |text| {
            duration(text, "must be a duration such as \"5m\" or \"24h\"")
        })
    }

    /// A text that must be there and not be empty; empty if it is not.
    pub(super) fn required(&mut self, key: &str) -> String {
        let text = self.text(key);
        if !self.values.contains_key(key) {
            self.problem(Problem {
                key: key.to_owned(),
                text: ": is missing".to_owned(),
            });
        }
        self.check(text.as_deref() != Some(""), key, "must not be empty");
        text.unwrap_or_default()
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        self.known.insert(key.to_owned());
        let flag = match self.values.get(key).map(|value| &value.kind) {
            None => return default,
            Some(ValueKind::Boolean(flag)) => Some(*flag),
            Some(ValueKind::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        self.check(flag.is_some(), key, "must be true or false");
        flag.unwrap_or(default)
    }

    /// A number that is not negative.
    pub(super) fn amount(&mut self, key: &str, default: f64) -> f64 {
        self.known.insert(key.to_owned());
        #[expect(clippy::cast_precision_loss, reason = "no price is that large")]
        let amount = match self.values.get(key).map(|value| &value.kind) {
            None => return default,
            Some(ValueKind::Float(amount)) => Some(*amount),
            Some(ValueKind::I64(amount)) => Some(*amount as f64),
            Some(_) => None,
        };
        let amount = amount.filter(|amount| amount.is_finite() && *amount >= 0.0);
        self.check(amount.is_some(), key, "must be a number, 0 or more");
        amount.unwrap_or(default)
    }

    /// A whole number up to `most`, or a text of one, as the environment has it.
    pub(super) fn number(&mut self, key: &str, default: usize, most: usize) -> usize {
        self.known.insert(key.to_owned());
        let number = match self.values.get(key).map(|value| &value.kind) {
            None => return default,
            Some(ValueKind::I64(number)) => usize::try_from(*number).ok(),
            Some(ValueKind::String(text)) => text.parse().ok(),
            Some(_) => None,
        };
        let number = number.filter(|number| *number <= most);
        let rule = format!("must be a whole number from 0 to {most}");
        self.check(number.is_some(), key, &rule);
        number.unwrap_or(default)
    }

    /// A text that may be left out or empty.
    pub(super) fn optional(&mut self, key: &str) -> Option<String> {
        self.text(key).filter(|text| !text.is_empty())
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str, default: &[&str]) -> Vec<String> {
        self.known.insert(key.to_owned());
        let Some(value) = self.values.get(key) else {
            return default.iter().map(ToString::to_string).collect();
        };
        let texts = match &value.kind {
            ValueKind::Array(items) => items.iter().map(as_text).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        self.check(texts.is_some(), key, "must be a list of texts");
        texts.unwrap_or_default()
    }

    /// The number of tables in an array of tables.
    pub(super) fn tables(&mut self, key: &str) -> usize {
        if self.values.contains_key(key) {
            self.known.insert(key.to_owned());
            self.check(false, key, "must be an array of tables, in the file");
        }
        self.tables.get(key).copied().unwrap_or(0)
    }

    /// Whether the file or the environment sets `key`.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Tells a problem with `key` unless `ok`.
    pub(super) fn check(&mut self, ok: bool, key: &str, rule: &str) {
        if !ok {
            let value = self
                .values
                .get(key)
                .map_or(String::new(), |value| format!(" = {}", Shown(value)));
            let text = format!("{value}{}: {rule}", self.origin(key));
            self.problem(Problem {
                key: key.to_owned(),
                text,
            });
        }
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        self.problems.insert(problem);
    }

    /// Keys in `table` are not told as unknown: nobody knows what they should be.
    pub(super) fn ignore(&mut self, table: &str) {
        self.ignored.push(table.to_owned());
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.known.insert(key.to_owned());
        let text = as_text(self.values.get(key)?);
        self.check(text.is_some(), key, "must be a text");
        text
    }

    fn is_known(&self, key: &str) -> bool {
        self.known.contains(key) || self.ignored.iter().any(|table| key.starts_with(table))
    }

    /// The known key that is most like `key`: of its table, if that is known.
    fn alike(&self, key: &str) -> Option<&String> {
        let (table, name) = parts(key);
        let of_table = self.known.iter().filter(|known| parts(known).0 == table);
        let mut likeness: Vec<(f64, &String)> = of_table
            .map(|known| (strsim::jaro_winkler(parts(known).1, name), known))
            .collect();
        if likeness.is_empty() {
            let all = self.known.iter();
            likeness.extend(all.map(|known| (strsim::jaro_winkler(known, key), known)));
        }
        let (likeness, best) = likeness.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
        (likeness >= ALIKE).then_some(best)
    }

    fn origin(&self, key: &str) -> &'static str {
        let origin = self.values.get(key).and_then(Value::origin);
        if origin.is_some_and(|origin| origin.contains("environment")) {
            " (from the environment)"
        } else {
            ""
        }
    }
}

/// Reads a duration that can be added to others and to the time; `rule` is what it must be.
pub(super) fn duration(text: &str, rule: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{rule}: {error}"))?;
    if duration > LONGEST {
        return Err("must not be longer than 100 years".to_owned());
    }
    Ok(duration)
}

/// Reads a size. Without a unit, nobody can tell whether one was forgotten.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let rule = "must be a size with its unit, such as \"50GiB\"";
    let bare = text.ends_with(|c: char| !c.is_ascii_alphabetic());
    let size: ByteSize = text.parse().map_err(|_| rule.to_owned())?;
    match bare {
        true => Err(rule.to_owned()),
        false => Ok(size.as_u64()),
    }
}

/// The table of a dotted key, and its name there.
fn parts(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// Brings tables in tables to dotted keys; arrays of tables get their place in brackets.
fn flatten(
    key: String,
    value: Value,
    out: &mut BTreeMap<String, Value>,
    tables: &mut BTreeMap<String, usize>,
) {
    match value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                flatten(format!("{key}.{name}"), value, out, tables);
            }
        }
        ValueKind::Array(items)
            if items
                .iter()
                .any(|item| matches!(item.kind, ValueKind::Table(_))) =>
        {
            tables.insert(key.clone(), items.len());
            for (place, item) in items.into_iter().enumerate() {
                flatten(format!("{key}[{place}]"), item, out, tables);
            }
        }
        _ => {
            out.insert(key, value);
        }
    }
}

fn as_text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// A value as it stands in the file.
struct Shown<'v>(&'v Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            ValueKind::String(text) => write!(f, "{text:?}"),
            ValueKind::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| Shown(item).to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            _ => write!(f, "{}", self.0),
        }
    }
}
