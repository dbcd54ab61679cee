//! The document: one JSON object, of bounded length.

use std::sync::Mutex;

use serde_json::Value;

use crate::lock;

/// Bytes that the document may have when nothing is said.
pub const DEFAULT_SIZE_LIMIT: usize = 51_200;

/// What the guest can read. It is whole at any time: a change is seen all at once, or not at all.
#[derive(Debug)]
pub struct MmdsStore {
    /// None before the first `put`.
    document: Mutex<Option<Value>>,
    limit: usize,
}

/// Why the document is not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is nothing to patch.
    #[error("The MMDS data store is not initialized: PUT it before it can be patched.")]
    NotInitialized,
    /// It would be too long.
    #[error("The MMDS data store would have {len} bytes as JSON: its limit is {limit}.")]
    TooLarge {
        /// Bytes that it would have.
        len: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// Not an object.
    #[error("The MMDS data store is a JSON object, not {0}.")]
    NotAnObject(&'static str),
}

/// What is at a path of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Something, in the format that was asked for.
    Text(String),
    /// Something that the format has no form for.
    Unsupported,
    /// Nothing.
    Nothing,
}

/// How the guest is told what is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As it is.
    Json,
    /// As EC2's service has it: a string is itself, an object the list of its keys.
    Imds,
}

impl Default for MmdsStore {
    fn default() -> Self {
        Self::new(DEFAULT_SIZE_LIMIT)
    }
}

impl MmdsStore {
    /// An empty store for a document of up to `limit` bytes, as compact JSON.
    pub fn new(limit: usize) -> Self {
        Self { document: Mutex::new(None), limit }
    }

    /// The document; an empty object before the first `put`.
    pub fn get(&self) -> Value {
        lock(&self.document).clone().unwrap_or_else(|| Value::Object(serde_json::Map::new()))
    }

    /// Replaces the document.
    ///
    /// # Errors
    /// When it is too long or no object; nothing has changed then.
    pub fn put(&self, document: Value) -> Result<(), StoreError> {
        must_be_object(&document)?;
        self.check(&document)?;
        *lock(&self.document) = Some(document);
        Ok(())
    }

    /// Changes the document by a JSON merge patch (RFC 7396).
    ///
    /// # Errors
    /// When there is no document, or it would be too long, or the patch is no object; nothing has changed then.
    pub fn patch(&self, patch: &Value) -> Result<(), StoreError> {
        let mut place = lock(&self.document);
        let mut document = place.clone().ok_or(StoreError::NotInitialized)?;
        must_be_object(patch)?;
        json_patch::merge(&mut document, patch);
        self.check(&document)?;
        *place = Some(document);
        Ok(())
    }

    fn check(&self, document: &Value) -> Result<(), StoreError> {
        let (len, limit) = (document.to_string().len(), self.limit);
        if len > limit { Err(StoreError::TooLarge { len, limit }) } else { Ok(()) }
    }

    /// What is at `pointer`, a JSON pointer (RFC 6901), in `format`.
    pub(super) fn read(&self, pointer: &str, format: Format) -> Found {
        let document = lock(&self.document);
        match (document.as_ref().and_then(|document| document.pointer(pointer)), format) {
            (None, _) => Found::Nothing,
            (Some(value), Format::Json) => Found::Text(value.to_string()),
            (Some(Value::String(text)), Format::Imds) => Found::Text(text.clone()),
            (Some(Value::Object(object)), Format::Imds) => {
                let key = |(key, value): (&String, &Value)| {
                    if value.is_object() { format!("{key}/") } else { key.clone() }
                };
                Found::Text(object.iter().map(key).collect::<Vec<_>>().join("\n"))
            }
            (Some(_), Format::Imds) => Found::Unsupported,
        }
    }
}

fn must_be_object(value: &Value) -> Result<(), StoreError> {
    Err(StoreError::NotAnObject(match value {
        Value::Object(_) => return Ok(()),
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
    }))
}
