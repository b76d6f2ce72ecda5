//! Uses of `attn!` that compile (`uses/`), each mistake that does not (`mistakes/`, one a file, with the compiler's words
//! beside it), and what is said where nothing was prepared (`unprepared/`). Bless with `TRYBUILD=overwrite`.
