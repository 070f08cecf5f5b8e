// SPDX-License-Identifier: GPL-2.0

//! Stands in for the attribute `#[pin_data]` of the `kernel` crate.

use proc_macro::{Group, TokenStream, TokenTree};

/// Leaves out each `#[pin]`: what is in an `Arc` of this `kernel` crate stays where it is, and
/// nothing in it minds being moved before.
#[proc_macro_attribute]
pub fn pin_data(_: TokenStream, item: TokenStream) -> TokenStream {
    let mut tokens = item.into_iter().peekable();
    let mut rest = TokenStream::new();

    while let Some(token) = tokens.next() {
        match (&token, tokens.peek()) {
            (TokenTree::Punct(punct), Some(TokenTree::Group(group)))
                if punct.as_char() == '#' && group.stream().to_string() == "pin" =>
            {
                tokens.next();
            }
            (TokenTree::Group(group), _) => {
                let inner = pin_data(TokenStream::new(), group.stream());

                rest.extend([TokenTree::Group(Group::new(group.delimiter(), inner))]);
            }
            _ => rest.extend([token]),
        }
    }
    rest
}
