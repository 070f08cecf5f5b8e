// SPDX-License-Identifier: GPL-2.0

//! Runs of struct pages, against what one would write by hand: see `models/stamp.rs`.

#[path = "models/stamp.rs"]
mod models;
#[path = "../../../mm/memmap_async/stamp.rs"]
mod stamp;

macro_rules! tests {
    ($($model:ident,)*) => {
        $(
            #[test]
            fn $model() {
                models::$model();
            }
        )*
    };
}

tests! {
    nothing_moves,
    a_list_head_moves,
    a_list_head_and_a_word_move,
    one_word_moves,
    two_words_move,
    anything_moves,
}
