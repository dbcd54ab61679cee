use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::store::{Format, Found};
use super::super::token::Tokens;
use super::*;

#[test]
fn a_patch_merges_and_null_takes_away() {
    let store = MmdsStore::default();
    assert_eq!(store.get(), json!({}));
    assert_eq!(store.patch(&json!({"a": 1})), Err(StoreError::NotInitialized));
    store.put(json!({"a": {"b": 1, "c": "x"}, "list": [1, 2]})).unwrap();
    store.patch(&json!({"a": {"b": null, "d": {"e": true}}, "list": [3]})).unwrap();
    assert_eq!(store.get(), json!({"a": {"c": "x", "d": {"e": true}}, "list": [3]}));
    store.put(json!({})).unwrap();
    assert_eq!(store.get(), json!({}));
    store.patch(&json!({"a": null, "b": 1})).unwrap();
    assert_eq!(store.get(), json!({"b": 1}));
}

#[test]
fn what_is_too_long_or_no_object_changes_nothing() {
    let store = MmdsStore::new(20);
    let longest = json!({"a": "0123456789ab"});
    assert_eq!(longest.to_string().len(), 20);
    store.put(longest.clone()).unwrap();
    assert_eq!(store.put(json!({"a": "0123456789abc"})), Err(StoreError::TooLarge { len: 21, limit: 20 }));
    assert_eq!(store.patch(&json!({"b": 1})), Err(StoreError::TooLarge { len: 26, limit: 20 }));
    for value in [Value::Null, json!([]), json!(1), json!("x"), json!(true)] {
        assert!(matches!(store.put(value.clone()), Err(StoreError::NotAnObject(_))));
        assert!(matches!(store.patch(&value), Err(StoreError::NotAnObject(_))));
    }
    assert_eq!(store.get(), longest);
}

#[test]
fn what_is_at_a_path_depends_on_the_format() {
    let store = MmdsStore::default();
    store
        .put(json!({"meta": {"id": "i-1", "net": {}, "tags": ["x"], "a/b": "slash"}, "n": 5, "none": null}))
        .unwrap();
    let text = |text: &str| Found::Text(text.to_owned());
    for (pointer, json, imds) in [
        ("/meta/id", text("\"i-1\""), text("i-1")),
        ("/meta", text(r#"{"a/b":"slash","id":"i-1","net":{},"tags":["x"]}"#), text("a/b\nid\nnet/\ntags")),
        ("/meta/net", text("{}"), text("")),
        ("/meta/tags", text(r#"["x"]"#), Found::Unsupported),
        ("/meta/tags/0", text("\"x\""), text("x")),
        ("/meta/tags/1", Found::Nothing, Found::Nothing),
        ("/meta/a~1b", text("\"slash\""), text("slash")),
        ("/n", text("5"), Found::Unsupported),
        ("/none", text("null"), Found::Unsupported),
        ("/nothing", Found::Nothing, Found::Nothing),
        ("/meta/id/more", Found::Nothing, Found::Nothing),
    ] {
        assert_eq!(store.read(pointer, Format::Json), json, "{pointer}");
        assert_eq!(store.read(pointer, Format::Imds), imds, "{pointer}");
    }
    assert_eq!(MmdsStore::default().read("", Format::Json), Found::Nothing, "before the first put");
}

#[test]
fn a_token_is_good_until_it_expires_and_only_where_it_was_issued() {
    let tokens = Tokens::default();
    let now = Instant::now();
    assert!(!tokens.is_valid(&[b'0'; 64], now), "before there is a key");
    let token = tokens.issue(Duration::from_mins(1), now).unwrap();
    assert_eq!(token.len(), 64);
    assert!(tokens.is_valid(token.as_bytes(), now));
    assert!(tokens.is_valid(token.to_ascii_uppercase().as_bytes(), now + Duration::from_millis(59_900)));
    assert!(!tokens.is_valid(token.as_bytes(), now + Duration::from_millis(60_100)));
    assert_ne!(token, tokens.issue(Duration::from_mins(1), now).unwrap());

    let others = Tokens::default();
    others.issue(Duration::from_mins(1), now).unwrap();
    assert!(!others.is_valid(token.as_bytes(), now));
    for at in 0..token.len() {
        let mut forged = token.clone().into_bytes();
        forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
        assert!(!tokens.is_valid(&forged, now), "digit {at} changed");
    }
    for wrong in ["", "x", &token[..63], &format!("{token}0"), &"g".repeat(64), &"é".repeat(32)] {
        assert!(!tokens.is_valid(wrong.as_bytes(), now), "{wrong}");
    }
}
