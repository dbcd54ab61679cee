//! From the example of a body and its schema: other bodies that are right, and bodies that are wrong in one place.

use serde_json::{Map, Value, json};

use super::document::{Document, required};

/// A body that has to be refused.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) body: Value,
    /// The message has one of these in it.
    pub(super) named: Vec<String>,
    /// It says that these are all the fields that there are.
    pub(super) fields: Option<Vec<String>>,
}

impl Wrong {
    fn new(body: Value, named: Vec<String>) -> Self {
        Self { body, named, fields: None }
    }

    /// The same as the member `name` of `whole`, or in it.
    fn within(self, whole: &Value, name: &str, place: impl FnOnce(Value) -> Value) -> Self {
        Self { body: with(whole, name, place(self.body)), ..self }
    }
}

/// A longer text than any field takes.
const TOO_LONG: usize = 200;

impl Document {
    /// Bodies like `valid`, each with one field set to another value of its range, and those of `valid`'s own fields last.
    pub(super) fn right(&self, schema: &Value, valid: &Value) -> Vec<Value> {
        let mut all = Vec::new();
        for (name, property) in properties(schema) {
            let resolved = self.resolve(property);
            if refused(resolved) == Some(&json!(true)) {
                continue;
            }
            for value in self.values(property, &valid[name]) {
                if refused(resolved) == Some(&value) {
                    continue;
                }
                let mut body = with(valid, name, value);
                if let Some(other) = property["x-rvmm-instead-of"].as_str() {
                    body.as_object_mut().unwrap().remove(other);
                }
                all.push(body);
            }
        }
        all
    }

    /// Values that a field takes, the most ordinary one last.
    fn values(&self, property: &Value, valid: &Value) -> Vec<Value> {
        let schema = self.resolve(property);
        if let Some(values) = schema["enum"].as_array() {
            return values.iter().rev().cloned().collect();
        }
        match schema["type"].as_str().unwrap() {
            "boolean" => vec![json!(false)],
            "integer" => {
                let limits: &[&str] = if schema.get("x-rvmm-limited-by").is_some() {
                    &["minimum"]
                } else {
                    &["maximum", "minimum"]
                };
                limits.iter().map(|limit| schema[limit].clone()).collect()
            }
            "object" if schema.get("properties").is_some() => {
                let filled = if valid.is_object() { valid.clone() } else { self.least(schema) };
                self.right(schema, &filled)
            }
            "object" => vec![json!({}), json!({"a": "b"})],
            "array" => {
                let mut lists = Vec::new();
                if schema.get("minItems").is_none() {
                    lists.push(json!([]));
                }
                if let Some(first) = valid.get(0).filter(|first| first.is_object()) {
                    let items = self.right(self.resolve(&schema["items"]), first);
                    lists.extend(items.into_iter().map(|item| json!([item])));
                }
                lists
            }
            // A text is a path or an id that has to be: the example has it.
            _ if refused(schema).is_some() || !valid.is_null() => Vec::new(),
            _ => vec![json!("x")],
        }
    }

    /// The object with the fewest fields that fits `schema`.
    fn least(&self, schema: &Value) -> Value {
        let mut members = Map::new();
        for name in required(schema) {
            let property = self.resolve(&schema["properties"][name]);
            members.insert(name.to_owned(), property["minimum"].clone());
        }
        Value::Object(members)
    }

    /// Bodies like `valid` that are each wrong in one place.
    pub(super) fn wrong(&self, schema: &Value, valid: &Value) -> Vec<Wrong> {
        let mut all = Vec::new();
        if schema["additionalProperties"] == false {
            let unknown = Wrong::new(with(valid, "colour", json!("red")), vec!["colour".to_owned()]);
            let fields = properties(schema).map(|(name, _)| name.to_owned()).collect();
            all.push(Wrong { fields: Some(fields), ..unknown });
        }
        for name in required(schema) {
            let mut body = valid.clone();
            body.as_object_mut().unwrap().remove(name);
            all.push(Wrong::new(body, vec![name.to_owned()]));
        }
        for (name, property) in properties(schema) {
            for value in self.wrong_values(property, &valid[name]) {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                all.push(Wrong::new(with(valid, name, value), vec![name.to_owned(), text]));
            }
            let resolved = self.resolve(property);
            if resolved.get("properties").is_some() {
                let inner = if valid[name].is_object() { valid[name].clone() } else { self.least(resolved) };
                let nested = self.wrong(resolved, &inner);
                all.extend(nested.into_iter().map(|wrong| wrong.within(valid, name, |body| body)));
            }
            if let Some(first) = valid[name].get(0).filter(|first| first.is_object()) {
                let nested = self.wrong(self.resolve(&resolved["items"]), first);
                all.extend(nested.into_iter().map(|wrong| wrong.within(valid, name, |item| json!([item]))));
            }
        }
        all
    }

    /// Values that a field does not take.
    fn wrong_values(&self, property: &Value, valid: &Value) -> Vec<Value> {
        let schema = self.resolve(property);
        let mut all = vec![match schema["type"].as_str().unwrap() {
            "string" => json!(17),
            _ => json!("text"),
        }];
        match schema["type"].as_str().unwrap() {
            "string" if schema.get("enum").is_some() => all.push(json!("Nonsense")),
            "integer" => {
                all.extend([json!(-1), json!(1.5), json!(true)]);
                let minimum = schema["minimum"].as_u64().unwrap();
                all.extend(minimum.checked_sub(1).map(Value::from));
                let maximum = schema["maximum"].as_u64().unwrap();
                // As JSON has it: no integer is that large.
                all.push(maximum.checked_add(1).map_or(json!(18_446_744_073_709_551_616.0), Value::from));
            }
            "boolean" => all.push(json!(1)),
            "array" => {
                all.push(json!([17]));
                all.extend(schema.get("minItems").map(|_| json!([])));
            }
            "object" if schema["additionalProperties"].is_object() => all.push(json!({"a": 17})),
            _ => {}
        }
        if schema["minLength"].as_u64().is_some_and(|length| length > 0) {
            all.push(json!(""));
        }
        if schema["maxLength"].is_u64() {
            all.push(json!("x".repeat(TOO_LONG)));
        }
        if schema["pattern"].is_string() {
            all.push(json!("no.good"));
        }
        all.extend(refused(schema).filter(|value| *value != valid).cloned());
        all
    }
}

/// The value of a field that is refused although it has the right form, or `true` for all.
fn refused(schema: &Value) -> Option<&Value> {
    schema.get("x-rvmm-unsupported").or_else(|| schema.get("x-rvmm-depends"))
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    schema["properties"].as_object().into_iter().flatten().map(|(name, property)| (name.as_str(), property))
}

/// `body` with one member more, or another.
fn with(body: &Value, name: &str, value: Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().insert(name.to_owned(), value);
    body
}
