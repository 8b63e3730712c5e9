//! Rust text to tokens, with what is under `#[cfg(test)]` taken out, and the few questions that are asked of them.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The tokens of `text` outside tests, and the names of modules in other files that only tests have.
pub(super) fn without_tests(text: &str) -> Result<(Vec<TokenTree>, Vec<String>), String> {
    let stream: TokenStream = text.parse().map_err(|error| format!("is not Rust: {error}"))?;
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut kept = Vec::new();
    let mut test_modules = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        if let [_, TokenTree::Group(attribute), item @ ..] = rest
            && is_punct(first, '#')
            && is_cfg_test(&attribute.stream())
        {
            let length = item_length(item);
            let (item, after) = item.split_at(length);
            test_modules.extend(declared_module(item));
            rest = after;
        } else {
            kept.push(first.clone());
            rest = after;
        }
    }
    Ok((kept, test_modules))
}

/// `cfg(test)`, exactly: `cfg(not(test))` and `cfg(any(test, ...))` are code that also runs elsewhere.
fn is_cfg_test(attribute: &TokenStream) -> bool {
    let text: String = attribute.to_string().chars().filter(|c| !c.is_whitespace()).collect();
    text == "cfg(test)"
}

/// How many tokens the item at the start has: up to its body in braces, or to its semicolon.
fn item_length(tokens: &[TokenTree]) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        other => is_punct(other, ';'),
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1)
}

/// The name in `mod name;`.
fn declared_module(item: &[TokenTree]) -> Option<String> {
    item.windows(3).find_map(|window| match window {
        [TokenTree::Ident(keyword), TokenTree::Ident(name), end] if keyword == "mod" && is_punct(end, ';') => {
            Some(name.to_string())
        }
        _ => None,
    })
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// All tokens, those inside groups too, in order.
pub(super) fn flat(tokens: &[TokenTree]) -> Vec<TokenTree> {
    let mut all = Vec::new();
    for token in tokens {
        all.push(token.clone());
        if let TokenTree::Group(group) = token {
            all.extend(flat(&group.stream().into_iter().collect::<Vec<_>>()));
        }
    }
    all
}

/// Every module of `std` that is named, with its line: `std::fs`, `use std::{fs, env}`; `*` for `extern crate std`.
pub(super) fn paths_into_std(tokens: &[TokenTree]) -> Vec<(String, usize)> {
    let all = flat(tokens);
    let mut found = Vec::new();
    for (index, token) in all.iter().enumerate() {
        let TokenTree::Ident(word) = token else { continue };
        if word != "std" {
            continue;
        }
        let line = word.span().start().line;
        match all.get(index + 1..) {
            Some([a, b, TokenTree::Ident(module), ..]) if is_punct(a, ':') && is_punct(b, ':') => {
                found.push((module.to_string(), line));
            }
            Some([a, b, TokenTree::Group(group), ..]) if is_punct(a, ':') && is_punct(b, ':') => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let firsts = inner.split(|token| is_punct(token, ',')).filter_map(|part| part.first());
                found.extend(firsts.map(|first| (first.to_string(), first.span().start().line)));
            }
            Some([a, b, star, ..]) if is_punct(a, ':') && is_punct(b, ':') && is_punct(star, '*') => {
                found.push(("*".to_owned(), line));
            }
            _ => found.push(("*".to_owned(), line)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_tests_in_other_files_are_named() {
        let (kept, modules) =
            without_tests("mod a;\n#[cfg(test)]\nmod tests;\n#[cfg(not(test))]\nmod b;\n").expect("Rust");
        assert_eq!(modules, ["tests"]);
        let words: Vec<String> = flat(&kept).iter().map(ToString::to_string).collect();
        assert!(words.contains(&"b".to_owned()) && !words.contains(&"tests".to_owned()));
    }

    #[test]
    fn only_the_item_under_the_attribute_is_left_out() {
        let (kept, _) = without_tests("#[cfg(test)]\nuse std::fs;\nuse std::env;\n").expect("Rust");
        assert_eq!(paths_into_std(&kept), [("env".to_owned(), 3)]);
    }
}
