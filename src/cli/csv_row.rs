//! How a row of CSV becomes the JSON of a job: plain columns, and paths into parameters and labels.
//!
//! | column | becomes |
//! | --- | --- |
//! | `recipient`, `template`, `language`, `kind`, … | the key of that name |
//! | `parameters`, `message`, `labels`, `evidence` | the JSON in the cell |
//! | `body.1`, `body.2` | `{"body": [...]}`, for positional variables |
//! | `body.name` | `{"body": {"name": ...}}`, for named ones |
//! | `header` | the header's text |
//! | `header.link`, `header.filename` | the header's image, video or document, told by the link's ending |
//! | `button.0.url`, `button.1.payload` | `{"buttons": {"0": {"url": ...}, ...}}` |
//! | `code` | the code of an authentication template |
//! | `label.name` | `{"labels": {"name": ...}}` |
//!
//! An empty cell is no value.

use serde_json::{Map, Value, json};

/// Columns whose cells hold JSON.
const JSON_COLUMNS: [&str; 4] = ["parameters", "message", "labels", "evidence"];

/// The object that a row stands for.
pub(super) fn object<'a>(
    cells: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Map<String, Value>, String> {
    let mut row = Row::default();
    for (column, cell) in cells.filter(|(_, cell)| !cell.is_empty()) {
        row.put(column, cell)?;
    }
    row.finish()
}

#[derive(Default)]
struct Row {
    object: Map<String, Value>,
    parameters: Map<String, Value>,
    /// Positional values with their positions.
    positional: Vec<(usize, Value)>,
    header: Map<String, Value>,
}

impl Row {
    fn put(&mut self, column: &str, cell: &str) -> Result<(), String> {
        let text = Value::from(cell);
        match column.split('.').collect::<Vec<_>>()[..] {
            [name] if JSON_COLUMNS.contains(&name) => {
                let value = serde_json::from_str(cell)
                    .map_err(|_| format!("the column {name} holds no JSON"))?;
                self.object.insert(name.to_owned(), value);
            }
            ["code" | "header"] => {
                self.parameters.insert(column.to_owned(), text);
            }
            ["opt_out"] => {
                let value = cell
                    .parse::<bool>()
                    .map_err(|_| "opt_out is neither true nor false".to_owned())?;
                self.object.insert(column.to_owned(), value.into());
            }
            [_] => {
                self.object.insert(column.to_owned(), text);
            }
            ["body", name] => match name.parse::<usize>() {
                Ok(position) => self.positional.push((position, text)),
                Err(_) => into(&mut self.parameters, "body")?
                    .insert(name.to_owned(), text)
                    .map_or((), drop),
            },
            ["header", part @ ("link" | "filename")] => {
                self.header.insert(part.to_owned(), text);
            }
            ["button", index, part] => {
                let buttons = into(&mut self.parameters, "buttons")?;
                into(buttons, index)?.insert(part.to_owned(), text);
            }
            ["label", name] => {
                into(&mut self.object, "labels")?.insert(name.to_owned(), text);
            }
            _ => return Err(format!("the column {column} is not known")),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Map<String, Value>, String> {
        if !self.positional.is_empty() {
            let body = list(self.positional)?;
            if self.parameters.insert("body".to_owned(), body).is_some() {
                return Err("body has both positions and names".to_owned());
            }
        }
        if !self.header.is_empty() {
            let kind = self
                .header
                .get("link")
                .and_then(Value::as_str)
                .map_or("document", media_kind);
            self.parameters
                .insert("header".to_owned(), json!({ kind: self.header }));
        }
        if !self.parameters.is_empty()
            && self
                .object
                .insert("parameters".to_owned(), self.parameters.into())
                .is_some()
        {
            return Err("there is a column parameters, and others for its parts".to_owned());
        }
        Ok(self.object)
    }
}

/// The object under a key, made where there is none.
fn into<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>, String> {
    object
        .entry(key)
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| format!("{key} is given twice, in different forms"))
}

/// Values by position, which must be 1, 2, 3 and so on: a gap would shift what follows.
fn list(mut positional: Vec<(usize, Value)>) -> Result<Value, String> {
    positional.sort_by_key(|(position, _)| *position);
    for (expected, (position, _)) in (1..).zip(&positional) {
        if *position != expected {
            return Err(format!(
                "body.{expected} is empty, but body.{position} is not"
            ));
        }
    }
    Ok(positional.into_iter().map(|(_, value)| value).collect())
}

/// What a link leads to, by its ending; the provider takes anything as a document.
fn media_kind(link: &str) -> &'static str {
    let path = link.split(['?', '#']).next().unwrap_or(link);
    match path
        .rsplit('.')
        .next()
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("jpg" | "jpeg" | "png") => "image",
        Some("mp4" | "3gp") => "video",
        _ => "document",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(cells: &[(&str, &str)]) -> Result<Value, String> {
        object(cells.iter().copied()).map(Value::from)
    }

    #[test]
    fn columns_become_a_job() {
        let job = made(&[
            ("recipient", "+905321234567"),
            ("kind", ""),
            ("body.2", "#1042"),
            ("body.1", "Ada"),
            ("header.link", "https://a.example/pass.PDF?x=1.png"),
            ("header.filename", "pass.pdf"),
            ("button.0.url", "1042"),
            ("button.1.payload", "LATE"),
            ("label.shop", "7"),
        ]);
        let expected = json!({
            "recipient": "+905321234567",
            "parameters": {
                "body": ["Ada", "#1042"],
                "header": {"document": {"link": "https://a.example/pass.PDF?x=1.png", "filename": "pass.pdf"}},
                "buttons": {"0": {"url": "1042"}, "1": {"payload": "LATE"}},
            },
            "labels": {"shop": "7"},
        });
        assert_eq!(job, Ok(expected));
    }

    #[test]
    fn names_codes_and_json_are_taken_as_they_are() {
        assert_eq!(
            made(&[("body.name", "Ada")]),
            Ok(json!({"parameters": {"body": {"name": "Ada"}}}))
        );
        assert_eq!(
            made(&[("code", "007")]),
            Ok(json!({"parameters": {"code": "007"}}))
        );
        assert_eq!(
            made(&[("parameters", r#"{"code": "1"}"#)]),
            Ok(json!({"parameters": {"code": "1"}}))
        );
    }

    #[test]
    fn a_row_that_says_two_things_is_told() {
        for (cells, words) in [
            (&[("body.1", "a"), ("body.3", "c")][..], "body.2 is empty"),
            (&[("body.1", "a"), ("body.name", "b")], "both"),
            (&[("parameters", "{}"), ("code", "1")], "parameters"),
            (&[("parameters", "{")], "no JSON"),
            (&[("boddy.1", "a")], "boddy.1"),
        ] {
            let error = made(cells).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
