package data

import (
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"unicode"
	"unicode/utf8"
)

// Tokeniser turns text into the ids of its n-grams, without a vocabulary: every n-gram is hashed into one of Buckets ids
// (Weinberger et al. 2009). So nobody has to collect words to agree on ids, and rows hold numbers instead of words; that
// hides nothing from who guesses words and hashes them. The same text gives the same ids on every machine, but for
// characters that Unicode is yet to assign.
//
// Words are lower-cased rune by rune with unicode.ToLower, without other normalisation. A word is a run of letters,
// marks and numbers; an apostrophe between two of them belongs to it, ’ as '. A symbol, such as £ or +, is a word, so is %, and
// so is each rune of Han, Hiragana and Katakana. All other runes separate words.
//
// The n-grams come in this order, and what is beyond the room there is falls off: all words, all pairs of neighbouring
// words, all triples; then of each word, written <word>, the n-grams of 3 to Characters characters inside it, short ones
// first, but not <word> itself (Bojanowski et al. 2017, §3.2). Words of an n-gram are joined by a blank.
//
// The id of an n-gram is 1 + ⌊h · Buckets / 2^64⌋, where h is FNV-1a of 64 bits over the seed as 8 bytes, little-endian,
// one byte, 'w' for words or 'c' for characters, and the n-gram as UTF-8; then h ^= h>>33, h *= 0xff51afd7ed558ccd,
// h ^= h>>33, h *= 0xc4ceb9fe1a85ec53, h ^= h>>33, since the upper bits of FNV-1a alone depend too little on the last
// bytes. Id 0 is none.
type Tokeniser struct {
	Buckets    int    // ids are 1 to Buckets, which is in [2, 2^24)
	Words      int    // longest n-gram of words, 0 to 3; 0: none
	Characters int    // longest n-gram of characters, 3 to 6; 0: none
	Seed       uint64 // of the hash
}

// Validate names the field that is out of range.
func (t Tokeniser) Validate() error {
	switch {
	case t.Buckets < 2 || t.Buckets > maxID:
		return fmt.Errorf("%d buckets, want 2 to %d", t.Buckets, maxID)
	case t.Words < 0 || t.Words > 3:
		return fmt.Errorf("words %d, want 0 to 3", t.Words)
	case t.Characters != 0 && (t.Characters < 3 || t.Characters > 6):
		return fmt.Errorf("characters %d, want 3 to 6, or 0 for none", t.Characters)
	case t.Words == 0 && t.Characters == 0:
		return errors.New("neither words nor characters are set")
	}
	return nil
}

// IDs writes the first ids of the text to the front of into and 0 to what is left of it. It returns how many there are.
func (t Tokeniser) IDs(text string, into []float32) int {
	n := 0
	for id := range t.ids(text) {
		if n == len(into) {
			break
		}
		into[n] = float32(id)
		n++
	}
	clear(into[n:])
	return n
}

// ids are the ids of all n-grams of the text, in order.
func (t Tokeniser) ids(text string) iter.Seq[int] {
	return func(yield func(int) bool) {
		words := split(text)
		for n := 1; n <= t.Words; n++ {
			for i := range len(words) - n + 1 {
				if !yield(t.id('w', words[i:i+n]...)) {
					return
				}
			}
		}
		if t.Characters == 0 {
			return
		}
		for _, w := range words {
			for gram := range characters(w, t.Characters) {
				if !yield(t.id('c', gram)) {
					return
				}
			}
		}
	}
}

// id is the id of an n-gram.
func (t Tokeniser) id(what byte, parts ...string) int {
	h := uint64(fnvOffset)
	for i := range 8 {
		h = hashByte(h, byte(t.Seed>>(8*i)))
	}
	h = hashByte(h, what)
	for i, p := range parts {
		if i > 0 {
			h = hashByte(h, ' ')
		}
		for k := range len(p) {
			h = hashByte(h, p[k])
		}
	}
	high, _ := bits.Mul64(mix(h), uint64(t.Buckets))
	return 1 + int(high)
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func hashByte(h uint64, b byte) uint64 { return (h ^ uint64(b)) * fnvPrime }

// mix is the finaliser of MurmurHash3.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// split divides text into lower-case words.
func split(text string) (words []string) {
	var word []rune
	end := func() {
		if len(word) > 0 {
			words = append(words, string(word))
			word = word[:0]
		}
	}
	for i, r := range text {
		switch {
		case r == utf8.RuneError:
			end()
		case r == '%', unicode.IsSymbol(r), unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana):
			end()
			words = append(words, string(unicode.ToLower(r)))
		case inWord(r):
			word = append(word, unicode.ToLower(r))
		case (r == '\'' || r == '’') && len(word) > 0 && inWord(after(text[i:])):
			word = append(word, '\'')
		default:
			end()
		}
	}
	end()
	return words
}

func inWord(r rune) bool { return unicode.In(r, unicode.L, unicode.M, unicode.N) }

// after is the second rune of a text.
func after(text string) rune {
	_, n := utf8.DecodeRuneInString(text)
	r, _ := utf8.DecodeRuneInString(text[n:])
	return r
}

// characters are the n-grams of 3 to most runes of <word> but for the whole.
func characters(word string, most int) iter.Seq[string] {
	return func(yield func(string) bool) {
		framed := []rune("<" + word + ">")
		for n := 3; n <= min(most, len(framed)-1); n++ {
			for i := range len(framed) - n + 1 {
				if !yield(string(framed[i : i+n])) {
					return
				}
			}
		}
	}
}

func (c *Column) tokeniser() Tokeniser { return Tokeniser{c.Buckets, c.Words, c.Characters, c.Seed} }

func (c *Column) validateText() error {
	if c.Length < 1 || c.Length > maxLength {
		return fmt.Errorf("length %d, want 1 to %d", c.Length, maxLength)
	}
	return c.tokeniser().Validate()
}

// hash reads a text into ids. One without a word is missing.
func (c *Column) hash(text string, into []float64) error {
	if !utf8.ValidString(text) {
		return errors.New("the text is not UTF-8")
	}
	n := 0
	for id := range c.tokeniser().ids(text) {
		if n == len(into) {
			return nil
		}
		into[n] = float64(id)
		n++
	}
	if n == 0 {
		return c.none(into)
	}
	clear(into[n:])
	return nil
}
