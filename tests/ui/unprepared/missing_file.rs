drawloom::attn!(file = "specs/nowhere.attn");

fn main() {}
