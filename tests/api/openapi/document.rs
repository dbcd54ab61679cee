//! `resources/openapi.yaml`, as far as it is needed to hold it against a server.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// The document.
pub(super) struct Document {
    root: Value,
}

/// A method of a path.
pub(super) struct Operation<'a> {
    /// In capitals.
    pub(super) method: String,
    pub(super) path: &'a str,
    node: &'a Value,
}

impl Operation<'_> {
    /// Whether the server does not have it yet.
    pub(super) fn is_planned(&self) -> bool {
        self.node["x-rvmm-status"] == "planned"
    }

    /// Whether it is done of a VM of which nothing was configured, and never again.
    pub(super) fn is_once(&self) -> bool {
        self.node["x-rvmm-once"] == true
    }

    /// The fields of a body that name files which it makes.
    pub(super) fn makes(&self) -> impl Iterator<Item = &str> {
        self.node["x-rvmm-makes"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap())
    }

    /// Whether its body is bytes that mean nothing to the server.
    pub(super) fn takes_bytes(&self) -> bool {
        self.node["requestBody"]["content"].get("application/octet-stream").is_some()
    }

    /// A body that a server accepts.
    pub(super) fn example(&self) -> &Value {
        &self.node["requestBody"]["content"]["application/json"]["example"]
    }

    /// Whether a VM in `state` answers `body`.
    pub(super) fn is_answered(&self, state: &str, body: &Value) -> bool {
        let has = |states: &Value| states.as_array().unwrap().iter().any(|known| known == state);
        match &self.node["x-rvmm-states"] {
            Value::Null => true,
            Value::Object(by_value) => by_value.iter().any(|(value, states)| {
                body.as_object().unwrap().values().any(|has| has == value) && has(states)
            }),
            states => has(states),
        }
    }

    /// What kind of body is answered with 200, and its schema.
    pub(super) fn answer(&self) -> (&str, &Value) {
        let content = self.node["responses"]["200"]["content"].as_object().unwrap();
        let (kind, content) = content.iter().next().unwrap();
        (kind, &content["schema"])
    }
}

impl Document {
    pub(super) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("resources/openapi.yaml");
        let text = fs::read_to_string(path).unwrap();
        Self { root: serde_saphyr::from_str(&text).unwrap() }
    }

    pub(super) fn version(&self) -> &str {
        self.root["info"]["version"].as_str().unwrap()
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.root["paths"].as_object().unwrap().keys().map(String::as_str)
    }

    pub(super) fn operations(&self) -> Vec<Operation<'_>> {
        let mut all = Vec::new();
        for (path, methods) in self.root["paths"].as_object().unwrap() {
            for (method, node) in methods.as_object().unwrap() {
                if method != "parameters" {
                    all.push(Operation { method: method.to_ascii_uppercase(), path, node });
                }
            }
        }
        all
    }

    /// The schema of the body of `operation`.
    pub(super) fn body<'a>(&'a self, operation: &Operation<'a>) -> &'a Value {
        self.resolve(&operation.node["requestBody"]["content"]["application/json"]["schema"])
    }

    /// The schema that `schema` is, or refers to.
    #[track_caller]
    pub(super) fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        let Some(reference) = schema["$ref"].as_str() else { return schema };
        let found = self.root.pointer(reference.strip_prefix('#').unwrap());
        self.resolve(found.unwrap_or_else(|| panic!("{reference} leads nowhere")))
    }

    /// Every object in the document, with its place.
    pub(super) fn objects(&self) -> Vec<(String, &Value)> {
        fn collect<'a>(at: String, value: &'a Value, all: &mut Vec<(String, &'a Value)>) {
            match value {
                Value::Object(members) => {
                    for (key, member) in members {
                        collect(format!("{at}/{key}"), member, all);
                    }
                    all.push((at, value));
                }
                Value::Array(items) => {
                    for item in items {
                        collect(format!("{at}/-"), item, all);
                    }
                }
                _ => {}
            }
        }
        let mut all = Vec::new();
        collect(String::new(), &self.root, &mut all);
        all
    }

    /// Checks that `value` is what `schema` says.
    ///
    /// # Errors
    /// Where it is not, and why.
    pub(super) fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolve(schema);
        let wrong = |what: &str| Err(format!("{at}: {what}: {value}, by {schema}"));
        if let Some(choices) = schema["oneOf"].as_array() {
            let fits = choices.iter().filter(|choice| self.check(choice, value, at).is_ok()).count();
            return if fits == 1 { Ok(()) } else { wrong("is not one of the choices") };
        }
        let types = match &schema["type"] {
            Value::Array(types) => types.clone(),
            one => vec![one.clone()],
        };
        if !types.iter().any(|name| name == type_of(value)) {
            return wrong("has another type");
        }
        if schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
            return wrong("is none of the values");
        }
        let beyond = |limit: &str, outside: fn(f64, f64) -> bool| {
            let limits = value.as_f64().zip(schema[limit].as_f64());
            limits.is_some_and(|(value, limit)| outside(value, limit))
        };
        if beyond("minimum", |value, limit| value < limit) || beyond("maximum", |value, limit| value > limit)
        {
            return wrong("is out of range");
        }
        match value {
            Value::Object(members) => self.check_members(schema, members, at),
            Value::Array(items) => {
                items.iter().try_for_each(|item| self.check(&schema["items"], item, &format!("{at}/-")))
            }
            _ => Ok(()),
        }
    }

    fn check_members(
        &self,
        schema: &Value,
        members: &serde_json::Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        for name in required(schema) {
            if !members.contains_key(name) {
                return Err(format!("{at}: there is no {name}"));
            }
        }
        for (name, member) in members {
            let at = format!("{at}/{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(property), _) => self.check(property, member, &at)?,
                (None, Value::Bool(false)) => return Err(format!("{at} is not in the document")),
                (None, other @ Value::Object(_)) => self.check(other, member, &at)?,
                (None, _) => {}
            }
        }
        Ok(())
    }
}

/// The fields that an object must have.
pub(super) fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap())
}

/// The name of the type of a value.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
