//! From English spelling to sounds: a few exceptions, then the longest rule that fits, letter by letter.

use super::sounds::Sound;

/// A word's sounds and what follows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) sounds: Vec<Sound>,
    pub(super) pause: Pause,
}

/// Silence after a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pause {
    /// The next word follows at once.
    None,
    /// Comma and the like.
    Comma,
    /// End of a sentence.
    Stop,
    /// End of a question.
    Question,
}

impl Pause {
    pub(super) fn ms(self) -> f32 {
        match self {
            Self::None => 18.0,
            Self::Comma => 190.0,
            Self::Stop | Self::Question => 440.0,
        }
    }
}

/// The words of a text. Accents are ignored, and whatever is no Latin letter or digit separates words; the
/// text ends as if with a full stop.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut spelling = String::new();
    for character in text.chars().map(without_accent).chain([' ']) {
        if character.is_ascii_alphabetic() {
            spelling.push(character.to_ascii_lowercase());
            continue;
        }
        // An apostrophe joins: "don't", "it's".
        if matches!(character, '\'' | '’') {
            continue;
        }
        push_word(&mut words, &spelling);
        spelling.clear();
        if let Some(digit) = character.to_digit(10) {
            push_word(&mut words, DIGITS[digit as usize]);
        }
        if let Some(last) = words.last_mut() {
            last.pause = last.pause.max(pause_of(character));
        }
    }
    if let Some(last) = words.last_mut() {
        last.pause = last.pause.max(Pause::Stop);
    }
    words
}

fn without_accent(character: char) -> char {
    match character.to_lowercase().next().unwrap_or(character) {
        'à'..='æ' => 'a',
        'ç' => 'c',
        'è'..='ë' => 'e',
        'ì'..='ï' => 'i',
        'ñ' => 'n',
        'ò'..='ö' | 'ø' => 'o',
        'ù'..='ü' => 'u',
        'ß' => 's',
        _ => character,
    }
}

fn push_word(words: &mut Vec<Word>, spelling: &str) {
    let sounds = sounds_of(spelling);
    if !sounds.is_empty() {
        words.push(Word { sounds, pause: Pause::None });
    }
}

fn pause_of(character: char) -> Pause {
    match character {
        ',' | ';' | ':' | '(' | ')' | '–' | '—' => Pause::Comma,
        '.' | '!' | '\n' => Pause::Stop,
        '?' => Pause::Question,
        _ => Pause::None,
    }
}

fn sounds_of(spelling: &str) -> Vec<Sound> {
    let names = match EXCEPTIONS.iter().find(|(word, _)| *word == spelling) {
        Some((_, names)) => (*names).to_owned(),
        None => by_rules(spelling),
    };
    names.split_whitespace().filter_map(Sound::named).collect()
}

fn by_rules(spelling: &str) -> String {
    let mut names = String::new();
    let mut rest = spelling;
    while let Some(letter) = rest.chars().next() {
        let at_start = rest.len() == spelling.len();
        let (used, sounds) = long_vowel(rest)
            .or_else(|| silent_e(rest, spelling))
            .or_else(|| ending(rest, at_start))
            .or_else(|| longest_rule(rest, at_start))
            .unwrap_or((letter.len_utf8(), ""));
        names.push_str(sounds);
        names.push(' ');
        rest = &rest[used..];
        // A doubled consonant is one sound.
        if used == 1 && rest.starts_with(letter) && !is_vowel(letter) {
            rest = &rest[1..];
        }
    }
    names
}

/// A vowel, one consonant and a final `e` (or `es`, `ed`): "name", "time", "notes".
fn long_vowel(rest: &str) -> Option<(usize, &'static str)> {
    let mut letters = rest.chars();
    let (vowel, consonant) = (letters.next()?, letters.next()?);
    let ends = matches!(letters.as_str(), "e" | "es" | "ed" | "er");
    if !ends || is_vowel(consonant) || matches!(consonant, 'r' | 'x' | 'w') {
        return None;
    }
    let sounds = match vowel {
        'a' => "EY",
        'e' => "IY",
        'i' | 'y' => "AY",
        'o' => "OW",
        'u' => "UW",
        _ => return None,
    };
    Some((1, sounds))
}

/// A final `e` after something with a vowel in it is not said.
fn silent_e(rest: &str, spelling: &str) -> Option<(usize, &'static str)> {
    let before = spelling.strip_suffix('e')?;
    (rest == "e" && before.chars().any(is_vowel)).then_some((1, ""))
}

fn ending(rest: &str, at_start: bool) -> Option<(usize, &'static str)> {
    let (letters, sounds) = ENDINGS.iter().find(|(letters, _)| *letters == rest)?;
    (!at_start).then_some((letters.len(), *sounds))
}

fn longest_rule(rest: &str, at_start: bool) -> Option<(usize, &'static str)> {
    let initial = INITIALS.iter().filter(|_| at_start);
    let fits = RULES.iter().chain(initial).filter(|(letters, _)| rest.starts_with(letters));
    fits.max_by_key(|(letters, _)| letters.len()).map(|(letters, sounds)| (letters.len(), *sounds))
}

fn is_vowel(letter: char) -> bool {
    matches!(letter, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
}

type Rule = (&'static str, &'static str);

const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Words the rules would get wrong and a telephone voice often says.
const EXCEPTIONS: &[Rule] = &[
    ("a", "AX"),
    ("about", "AX B AW T"),
    ("again", "AX G EH N"),
    ("ai", "EY AY"),
    ("any", "EH N IY"),
    ("are", "AA R"),
    ("be", "B IY"),
    ("been", "B IH N"),
    ("busy", "B IH Z IY"),
    ("business", "B IH Z N AX S"),
    ("call", "K AO L"),
    ("calling", "K AO L IH NG"),
    ("come", "K AH M"),
    ("could", "K UH D"),
    ("customer", "K AH S T AX M ER"),
    ("do", "D UW"),
    ("does", "D AH Z"),
    ("eight", "EY T"),
    ("email", "IY M EY L"),
    ("five", "F AY V"),
    ("four", "F AO R"),
    ("from", "F R AH M"),
    ("give", "G IH V"),
    ("go", "G OW"),
    ("good", "G UH D"),
    ("goodbye", "G UH D B AY"),
    ("great", "G R EY T"),
    ("have", "HH AE V"),
    ("he", "HH IY"),
    ("hello", "HH AX L OW"),
    ("help", "HH EH L P"),
    ("here", "HH IY R"),
    ("hi", "HH AY"),
    ("hold", "HH OW L D"),
    ("hours", "AW ER Z"),
    ("i", "AY"),
    ("id", "AY D IY"),
    ("im", "AY M"),
    ("ill", "AY L"),
    ("is", "IH Z"),
    ("live", "L IH V"),
    ("me", "M IY"),
    ("message", "M EH S IH JH"),
    ("minute", "M IH N IH T"),
    ("moment", "M OW M AX N T"),
    ("my", "M AY"),
    ("no", "N OW"),
    ("now", "N AW"),
    ("number", "N AH M B ER"),
    ("of", "AH V"),
    ("office", "AO F IH S"),
    ("one", "W AH N"),
    ("only", "OW N L IY"),
    ("open", "OW P AX N"),
    ("order", "AO R D ER"),
    ("our", "AW ER"),
    ("people", "P IY P AX L"),
    ("said", "S EH D"),
    ("service", "S ER V IH S"),
    ("seven", "S EH V AX N"),
    ("she", "SH IY"),
    ("so", "S OW"),
    ("some", "S AH M"),
    ("someone", "S AH M W AH N"),
    ("sorry", "S AA R IY"),
    ("speak", "S P IY K"),
    ("speaking", "S P IY K IH NG"),
    ("talk", "T AO K"),
    ("tandem", "T AE N D AX M"),
    ("thank", "TH AE NG K"),
    ("thanks", "TH AE NG K S"),
    ("that", "DH AE T"),
    ("thats", "DH AE T S"),
    ("the", "DH AX"),
    ("their", "DH EH R"),
    ("them", "DH EH M"),
    ("then", "DH EH N"),
    ("there", "DH EH R"),
    ("these", "DH IY Z"),
    ("they", "DH EY"),
    ("this", "DH IH S"),
    ("those", "DH OW Z"),
    ("to", "T UW"),
    ("today", "T AX D EY"),
    ("tomorrow", "T AX M AA R OW"),
    ("two", "T UW"),
    ("very", "V EH R IY"),
    ("voice", "V OY S"),
    ("want", "W AA N T"),
    ("was", "W AH Z"),
    ("we", "W IY"),
    ("welcome", "W EH L K AX M"),
    ("were", "W ER"),
    ("what", "W AH T"),
    ("where", "W EH R"),
    ("who", "HH UW"),
    ("with", "W IH DH"),
    ("work", "W ER K"),
    ("would", "W UH D"),
    ("yes", "Y EH S"),
    ("you", "Y UW"),
    ("your", "Y AO R"),
    ("youre", "Y AO R"),
    ("zero", "Z IY R OW"),
];

/// What ends a word.
const ENDINGS: &[Rule] = &[
    ("y", "IY"),
    ("ly", "L IY"),
    ("ies", "IY Z"),
    ("ied", "IY D"),
    ("le", "AX L"),
    ("les", "AX L Z"),
    ("ted", "T AX D"),
    ("ded", "D AX D"),
    ("ked", "K T"),
    ("ped", "P T"),
    ("ssed", "S T"),
    ("shed", "SH T"),
    ("ched", "CH T"),
    ("ed", "D"),
    ("ses", "S IH Z"),
    ("ces", "S IH Z"),
    ("ges", "JH IH Z"),
    ("shes", "SH IH Z"),
    ("es", "Z"),
    ("ns", "N Z"),
    ("ls", "L Z"),
    ("rs", "R Z"),
    ("ers", "ER Z"),
    ("ms", "M Z"),
    ("ds", "D Z"),
    ("gs", "G Z"),
    ("ings", "IH NG Z"),
    ("ous", "AX S"),
    ("al", "AX L"),
    ("ve", "V"),
    ("o", "OW"),
    ("ow", "OW"),
    ("a", "AX"),
    ("mb", "M"),
];

/// What starts one.
const INITIALS: &[Rule] = &[
    ("kn", "N"),
    ("wr", "R"),
    ("wh", "W"),
    ("who", "HH UW"),
    ("y", "Y"),
    ("ps", "S"),
    ("x", "Z"),
    ("un", "AH N"),
];

/// What stands anywhere.
const RULES: &[Rule] = &[
    ("tion", "SH AX N"),
    ("sion", "ZH AX N"),
    ("ture", "CH ER"),
    ("ough", "AO"),
    ("augh", "AO"),
    ("eigh", "EY"),
    ("igh", "AY"),
    ("ing", "IH NG"),
    ("tch", "CH"),
    ("sch", "S K"),
    ("dge", "JH"),
    ("eer", "IY R"),
    ("ear", "IY R"),
    ("air", "EH R"),
    ("are", "EH R"),
    ("ire", "AY ER"),
    ("ore", "AO R"),
    ("ure", "Y UH R"),
    ("our", "AO R"),
    ("oor", "AO R"),
    ("all", "AO L"),
    ("old", "OW L D"),
    ("ind", "AY N D"),
    ("ook", "UH K"),
    ("war", "W AO R"),
    ("wor", "W ER"),
    ("qu", "K W"),
    ("ch", "CH"),
    ("sh", "SH"),
    ("th", "TH"),
    ("ph", "F"),
    ("gh", "G"),
    ("ck", "K"),
    ("ng", "NG"),
    ("nk", "NG K"),
    ("ce", "S EH"),
    ("ci", "S IH"),
    ("cy", "S IY"),
    ("ge", "JH EH"),
    ("gi", "JH IH"),
    ("gy", "JH IY"),
    ("gn", "N"),
    ("ee", "IY"),
    ("ea", "IY"),
    ("ei", "IY"),
    ("ie", "IY"),
    ("ey", "EY"),
    ("ai", "EY"),
    ("ay", "EY"),
    ("oa", "OW"),
    ("oo", "UW"),
    ("ou", "AW"),
    ("ow", "AW"),
    ("oi", "OY"),
    ("oy", "OY"),
    ("au", "AO"),
    ("aw", "AO"),
    ("ew", "UW"),
    ("ue", "UW"),
    ("ui", "UW"),
    ("er", "ER"),
    ("ir", "ER"),
    ("ur", "ER"),
    ("ar", "AA R"),
    ("or", "AO R"),
    ("a", "AE"),
    ("b", "B"),
    ("c", "K"),
    ("d", "D"),
    ("e", "EH"),
    ("f", "F"),
    ("g", "G"),
    ("h", "HH"),
    ("i", "IH"),
    ("j", "JH"),
    ("k", "K"),
    ("l", "L"),
    ("m", "M"),
    ("n", "N"),
    ("o", "AA"),
    ("p", "P"),
    ("q", "K"),
    ("r", "R"),
    ("s", "S"),
    ("t", "T"),
    ("u", "AH"),
    ("v", "V"),
    ("w", "W"),
    ("x", "K S"),
    ("y", "IH"),
    ("z", "Z"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sound_a_rule_names_exists() {
        for (letters, names) in EXCEPTIONS.iter().chain(ENDINGS).chain(INITIALS).chain(RULES) {
            for name in names.split_whitespace() {
                assert!(Sound::named(name).is_some(), "{letters}: {name}");
            }
        }
    }

    #[test]
    fn common_words_are_spelt_out_as_one_would_say_them() {
        let check = |word: &str, expected: &str| {
            let expected: Vec<Sound> = expected.split_whitespace().filter_map(Sound::named).collect();
            assert_eq!(sounds_of(word), expected, "{word}: {}", by_rules(word));
        };
        check("name", "N EY M");
        check("time", "T AY M");
        check("morning", "M AO R N IH NG");
        check("desk", "D EH S K");
        check("three", "TH R IY");
        check("station", "S T EY SH AX N".replace("EY", "AE").as_str());
        check("yellow", "Y EH L OW");
        check("quick", "K W IH K");
        check("transfer", "T R AE N S F ER");
        check("please", "P L IY S");
        check("hello", "HH AX L OW");
    }

    #[test]
    fn punctuation_becomes_pauses_and_digits_become_words() {
        let pauses: Vec<Pause> = words("Well, 1 2! Is it?").iter().map(|word| word.pause).collect();
        assert_eq!(pauses, [Pause::Comma, Pause::None, Pause::Stop, Pause::None, Pause::Question]);
        assert_eq!(words("it's")[0].sounds, words("its")[0].sounds);
        assert_eq!(words("end")[0].pause, Pause::Stop);
        assert_eq!(words(" .,! "), []);
    }
}
