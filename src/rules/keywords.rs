//! Which messages of people mean stop and which mean start again. The lists are data, by language, and the configuration
//! can replace them; the comparison forgives case, accents, punctuation and blanks, but takes the whole message: "stop by
//! at noon" is no opt-out.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// No more messages.
    Stop,
    /// Messages again.
    Start,
}

/// The words of one language, as the configuration writes them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// What opts out.
    #[serde(default)]
    pub stop: Vec<String>,
    /// What opts in again.
    #[serde(default)]
    pub start: Vec<String>,
}

/// All words of all languages, ready to compare: people do not write in the language that we expect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keywords {
    stop: HashSet<String>,
    start: HashSet<String>,
    opt_out_payloads: HashSet<String>,
}

/// The words that are used unless the configuration says otherwise: language, stop, start.
///
/// The English stop words are the five that the CTIA asks of text message senders, and their like; the others are what
/// senders in those languages commonly ask people to write. A bare "yes" or "no" is an answer to many questions and is
/// not among them.
pub const DEFAULT_WORDS: &[(&str, &[&str], &[&str])] = &[
    (
        "en",
        &[
            "stop",
            "stop all",
            "stopall",
            "unsubscribe",
            "cancel",
            "end",
            "quit",
            "opt out",
            "optout",
            "stop messages",
        ],
        &["start", "unstop", "subscribe", "opt in", "optin"],
    ),
    (
        "tr",
        &[
            "dur",
            "durdur",
            "iptal",
            "çık",
            "çıkış",
            "ret",
            "abonelikten çık",
            "mesaj istemiyorum",
            "mesaj gönderme",
        ],
        &["başla", "başlat", "abone ol"],
    ),
    (
        "ru",
        &[
            "стоп",
            "отписаться",
            "отписка",
            "отпишите",
            "отмена",
            "не писать",
        ],
        &["старт", "начать", "подписаться"],
    ),
    (
        "hy",
        &["ստոպ", "դադար", "դադարեցնել", "կանգ", "չեղարկել"],
        &["սկսել", "սկիզբ", "բաժանորդագրվել"],
    ),
    (
        "es",
        &[
            "parar",
            "pare",
            "alto",
            "detener",
            "baja",
            "darme de baja",
            "cancelar",
            "no más mensajes",
        ],
        &["iniciar", "empezar", "alta", "comenzar", "suscribirme"],
    ),
    (
        "pt",
        &[
            "parar",
            "pare",
            "sair",
            "cancelar",
            "descadastrar",
            "cancelar inscrição",
            "não quero receber",
        ],
        &["iniciar", "começar", "voltar a receber", "inscrever"],
    ),
    (
        "ar",
        &["توقف", "إيقاف", "أوقف", "قف", "إلغاء", "إلغاء الاشتراك"],
        &["ابدأ", "بدء", "اشتراك"],
    ),
    (
        "de",
        &[
            "stopp",
            "abmelden",
            "abbestellen",
            "beenden",
            "kündigen",
            "keine nachrichten mehr",
        ],
        &["starten", "anmelden", "wieder anmelden"],
    ),
    (
        "fr",
        &[
            "arrêt",
            "arrêter",
            "arrêtez",
            "désabonner",
            "se désabonner",
            "désinscription",
            "désinscrire",
        ],
        &["démarrer", "commencer", "reprendre", "abonner", "s'abonner"],
    ),
];

impl Default for Keywords {
    fn default() -> Self {
        Keywords::new(&default_words(), &[])
    }
}

impl Keywords {
    /// From words by language and the payloads of buttons that opt out.
    #[must_use]
    pub fn new(by_language: &BTreeMap<String, Words>, opt_out_payloads: &[String]) -> Self {
        let folded = |pick: fn(&Words) -> &Vec<String>| {
            by_language
                .values()
                .flat_map(pick)
                .map(|word| fold(word))
                .filter(|word| !word.is_empty())
                .collect()
        };
        Keywords {
            stop: folded(|words| &words.stop),
            start: folded(|words| &words.start),
            opt_out_payloads: opt_out_payloads.iter().cloned().collect(),
        }
    }

    /// What a whole message means, if it is one of the words. A word that is in both lists means stop.
    #[must_use]
    pub fn meaning(&self, text: &str) -> Option<Meaning> {
        // Folding costs more than looking; nobody asks to be left alone at this length.
        if text.len() > 200 {
            return None;
        }
        let text = fold(text);
        if self.stop.contains(&text) {
            Some(Meaning::Stop)
        } else if self.start.contains(&text) {
            Some(Meaning::Start)
        } else {
            None
        }
    }

    /// What a tapped button means. Its payload is one that the configuration lists, or, when the template gave none, the
    /// button's label, which is then read like a message.
    #[must_use]
    pub fn button_meaning(&self, payload: &str) -> Option<Meaning> {
        if self.opt_out_payloads.contains(payload) {
            Some(Meaning::Stop)
        } else {
            self.meaning(payload)
        }
    }
}

/// The default lists in the configuration's shape.
#[must_use]
pub fn default_words() -> BTreeMap<String, Words> {
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    DEFAULT_WORDS
        .iter()
        .map(|(language, stop, start)| {
            (
                (*language).to_owned(),
                Words {
                    stop: owned(stop),
                    start: owned(start),
                },
            )
        })
        .collect()
}

/// The form in which messages and words are compared: lower case, without accents and punctuation, single blanks.
fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut is_gap = false;
    for c in text
        .chars()
        .filter(|&c| !is_mark(c))
        .flat_map(char::to_lowercase)
        .filter(|&c| !is_mark(c))
    {
        if c.is_alphanumeric() {
            if is_gap && !folded.is_empty() {
                folded.push(' ');
            }
            folded.push(base(c));
            is_gap = false;
        } else {
            is_gap = true;
        }
    }
    folded
}

/// Marks that change the look of the letter before them, or nothing: combining accents (also what is left of a lower-cased
/// İ), Arabic vowel signs and stretching, joiners, variation selectors.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{64b}'..='\u{652}' | '\u{640}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}')
}

/// The letter without its accent, so that "arret" is "arrêt" and "cikis" is "çıkış". The dotless ı becomes i,
/// because whether IPTAL becomes iptal or ıptal depends on the keyboard.
fn base(c: char) -> char {
    match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'č' => 'c',
        'è'..='ë' | 'ē' | 'ę' | 'ě' => 'e',
        'ğ' => 'g',
        'ì'..='ï' | 'ı' => 'i',
        'ñ' => 'n',
        'ò'..='ö' => 'o',
        'ş' | 'š' => 's',
        'ù'..='ü' => 'u',
        'ё' => 'е',
        'й' => 'и',
        'أ' | 'إ' | 'آ' => 'ا',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn meaning(text: &str) -> Option<Meaning> {
        Keywords::default().meaning(text)
    }

    #[test]
    fn stop_is_understood_in_every_language() {
        for text in [
            "STOP",
            "DURDUR",
            "СТОП",
            "ՍՏՈՊ",
            "PARAR",
            "Não quero receber",
            "إيقاف",
            "Abmelden",
            "ARRÊT",
        ] {
            assert_eq!(meaning(text), Some(Meaning::Stop), "{text}");
        }
    }

    #[test]
    fn start_is_understood_in_every_language() {
        for text in [
            "START",
            "Başla",
            "СТАРТ",
            "Սկսել",
            "Iniciar",
            "Começar",
            "ابدأ",
            "Anmelden",
            "Démarrer",
        ] {
            assert_eq!(meaning(text), Some(Meaning::Start), "{text}");
        }
    }

    #[test]
    fn both_turkish_letters_i_are_one() {
        for text in [
            "iptal",
            "İPTAL",
            "IPTAL",
            "ıptal",
            "İptal",
            "i\u{307}ptal",
            "çıkış",
            "ÇIKIŞ",
            "ÇİKİŞ",
            "cikis",
        ] {
            assert_eq!(meaning(text), Some(Meaning::Stop), "{text}");
        }
    }

    #[test]
    fn case_blanks_punctuation_and_emoji_do_not_matter() {
        for text in [
            "  stop \n",
            "Stop!!!",
            "\"STOP\".",
            "*stop*",
            "st\u{200b}op",
            "stop 🙏",
            "Stop  all",
            "«Стоп»",
            "opt-out",
        ] {
            assert_eq!(meaning(text), Some(Meaning::Stop), "{text}");
        }
    }

    #[test]
    fn accents_do_not_matter_however_they_are_written() {
        for text in [
            "arret",
            "arrêt",
            "arre\u{302}t",
            "ARRET",
            "no mas mensajes",
            "kundigen",
            "الغاء",
            "إِلغاء",
            "إلـــغاء",
        ] {
            assert_eq!(meaning(text), Some(Meaning::Stop), "{text}");
        }
    }

    #[test]
    fn a_word_inside_a_message_is_not_meant() {
        for text in [
            "",
            "  ",
            "!",
            "stop by at noon",
            "please don't stop",
            "non-stop",
            "yes",
            "no",
            "1",
            "когда стоп?",
        ] {
            assert_eq!(meaning(text), None, "{text}");
        }
        assert_eq!(meaning(&format!("stop{}", " ".repeat(300))), None);
    }

    #[test]
    fn no_word_means_both() {
        let keywords = Keywords::default();
        assert_eq!(keywords.stop.intersection(&keywords.start).count(), 0);
    }

    #[test]
    fn every_default_word_is_understood_as_its_list_says() {
        for (language, stop, start) in DEFAULT_WORDS {
            for word in *stop {
                assert_eq!(meaning(word), Some(Meaning::Stop), "{language} {word}");
                assert_eq!(
                    meaning(&word.to_uppercase()),
                    Some(Meaning::Stop),
                    "{language} {word} in capitals"
                );
            }
            for word in *start {
                assert_eq!(meaning(word), Some(Meaning::Start), "{language} {word}");
                assert_eq!(
                    meaning(&word.to_uppercase()),
                    Some(Meaning::Start),
                    "{language} {word} in capitals"
                );
            }
        }
    }

    #[test]
    fn configured_words_replace_the_default_ones() {
        let italian = Words {
            stop: vec!["Basta!".to_owned(), "…".to_owned()],
            start: vec!["Avanti".to_owned()],
        };
        let keywords = Keywords::new(&BTreeMap::from([("it".to_owned(), italian)]), &[]);
        assert_eq!(keywords.meaning("BASTA"), Some(Meaning::Stop));
        assert_eq!(keywords.meaning("avanti"), Some(Meaning::Start));
        assert_eq!(keywords.meaning("stop"), None);
        assert_eq!(
            keywords.meaning("?"),
            None,
            "a word without letters is no word"
        );
    }

    #[test]
    fn a_button_opts_out_by_its_payload_or_its_label() {
        let keywords = Keywords::new(&default_words(), &["optout:all".to_owned()]);
        assert_eq!(keywords.button_meaning("optout:all"), Some(Meaning::Stop));
        assert_eq!(
            keywords.button_meaning("OPTOUT:ALL"),
            None,
            "a payload is compared exactly"
        );
        assert_eq!(keywords.button_meaning("Stop"), Some(Meaning::Stop));
        assert_eq!(keywords.button_meaning("track:42"), None);
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing_more(text in ".{0,40}") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }
    }
}
