package data

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// BANKING77 reads questions and their intents (Casanueva et al. 2020) from train.csv and test.csv of a directory, with
// the columns text and category: the first length ids of each text by the tokeniser, 0 behind them, and the place of the
// category among all of train.csv in order of the alphabet.
func BANKING77(dir string, tok Tokeniser, length int) (train, test Set, categories []string, err error) {
	if err := tok.Validate(); err != nil {
		return Set{}, Set{}, nil, fmt.Errorf("tokenise texts: %w", err)
	}
	if length < 1 || length > maxLength {
		return Set{}, Set{}, nil, fmt.Errorf("tokenise texts: length %d, want 1 to %d", length, maxLength)
	}
	err = readEither(dir, "train.csv", func(_ string, r io.Reader) error {
		texts, err := readTexts(r)
		if err != nil {
			return err
		}
		for _, t := range texts {
			categories = append(categories, t.category)
		}
		slices.Sort(categories)
		categories = slices.Compact(categories)
		train, err = textSet(texts, categories, tok, length)
		return err
	})
	if err != nil {
		return Set{}, Set{}, nil, err
	}
	err = readEither(dir, "test.csv", func(_ string, r io.Reader) error {
		texts, err := readTexts(r)
		if err == nil {
			test, err = textSet(texts, categories, tok, length)
		}
		return err
	})
	return train, test, categories, err
}

// labelledText is a text and its category.
type labelledText struct {
	line           int
	text, category string
}

func readTexts(r io.Reader) ([]labelledText, error) {
	cr := csv.NewReader(r)
	header, err := cr.Read()
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	text, category := slices.Index(header, "text"), slices.Index(header, "category")
	if text < 0 || category < 0 {
		return nil, fmt.Errorf("line 1: columns %q, want text and category among them", header)
	}
	var out []labelledText
	for {
		fields, err := cr.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := cr.FieldPos(0)
		t := labelledText{line, fields[text], fields[category]}
		if t.category == "" || !utf8.ValidString(t.text) {
			return nil, fmt.Errorf("line %d: the category is empty, or the text is not UTF-8", line)
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, errors.New("no texts")
	}
	return out, nil
}

func textSet(texts []labelledText, categories []string, tok Tokeniser, length int) (Set, error) {
	s := Set{X: make([]float32, len(texts)*length), Input: []int{length}, Targets: 1, Classes: len(categories)}
	if s.Classes < 2 {
		return Set{}, fmt.Errorf("%d categories, want at least 2", s.Classes)
	}
	for i, t := range texts {
		c, found := slices.BinarySearch(categories, t.category)
		if !found {
			return Set{}, fmt.Errorf("line %d: category %s is not among those that are learnt", t.line, quoted(t.category))
		}
		tok.IDs(t.text, s.X[i*length:(i+1)*length])
		s.Y = append(s.Y, float32(c))
	}
	return s, nil
}

// TinyShakespeare reads input.txt of a directory as a language model does, character by character: windows of so many
// characters that follow each other without overlap, and as targets the character after each. Characters are numbered
// from 0 by code point. Windows of the first nine tenths of the text are to learn from, of the last tenth to validate;
// the characters at either end that fill no window are left out.
func TinyShakespeare(dir string, window int) (train, validation Set, alphabet []rune, err error) {
	if window < 1 || window > maxLength {
		return Set{}, Set{}, nil, fmt.Errorf("windows of %d characters, want 1 to %d", window, maxLength)
	}
	err = readText(dir, func(runes []rune) error {
		alphabet = slices.Compact(slices.Sorted(slices.Values(runes)))
		cut := len(runes) * 9 / 10
		train, validation = windows(runes[:cut], alphabet, window), windows(runes[cut:], alphabet, window)
		if validation.Len() == 0 {
			return fmt.Errorf("%d characters are too few for windows of %d", len(runes), window)
		}
		return nil
	})
	return train, validation, alphabet, err
}

// readText reads input.txt of a directory.
func readText(dir string, take func(runes []rune) error) error {
	return readEither(dir, "input.txt", func(_ string, r io.Reader) error {
		text, err := io.ReadAll(io.LimitReader(r, maxText+1))
		switch {
		case err != nil:
			return err
		case len(text) > maxText:
			return fmt.Errorf("the text is longer than %d bytes", maxText)
		case !utf8.Valid(text):
			return errors.New("the text is not UTF-8")
		}
		return take([]rune(string(text)))
	})
}

// ShakespeareRoles reads the same file by who speaks, as LEAF does (Caldas et al. 2018): of each speaking role, in order
// of first appearance, all speeches one after the other, a line end between two, of which the first nine tenths of the
// characters are to learn from and the others to test with, in windows as TinyShakespeare makes them. A speech begins with
// a line that ends with a colon, at the beginning or after an empty line. owners are the role of each example of train,
// by place in roles, which names those that fill a window to learn from.
func ShakespeareRoles(dir string, window int) (train, test Set, owners []int32, roles []string, err error) {
	if window < 1 || window > maxLength {
		return Set{}, Set{}, nil, nil, fmt.Errorf("windows of %d characters, want 1 to %d", window, maxLength)
	}
	err = readText(dir, func(runes []rune) error {
		alphabet := slices.Compact(slices.Sorted(slices.Values(runes)))
		train, test = windows(nil, alphabet, window), windows(nil, alphabet, window)
		names, speeches := byRole(string(runes))
		for _, name := range names {
			said := []rune(speeches[name])
			cut := len(said) * 9 / 10
			learn, last := windows(said[:cut], alphabet, window), windows(said[cut:], alphabet, window)
			if learn.Len() > 0 {
				owners = append(owners, slices.Repeat([]int32{int32(len(roles))}, learn.Len())...)
				roles = append(roles, name)
			}
			train.X, train.Y = append(train.X, learn.X...), append(train.Y, learn.Y...)
			test.X, test.Y = append(test.X, last.X...), append(test.Y, last.Y...)
		}
		if len(roles) == 0 || test.Len() == 0 {
			return fmt.Errorf("no role says enough for windows of %d characters; is it a play, whose speeches begin with a name and a colon?", window)
		}
		return nil
	})
	return train, test, owners, roles, err
}

// byRole are the speaking roles in order of first appearance, and what each says.
func byRole(text string) (names []string, speeches map[string]string) {
	said := map[string]*strings.Builder{}
	for _, block := range strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n") {
		first, speech, _ := strings.Cut(strings.TrimLeft(block, "\n"), "\n")
		name, ok := strings.CutSuffix(first, ":")
		if !ok || name == "" {
			continue
		}
		if said[name] == nil {
			said[name] = &strings.Builder{}
			names = append(names, name)
		}
		said[name].WriteString(strings.TrimRight(speech, "\n") + "\n")
	}
	speeches = map[string]string{}
	for name, b := range said {
		speeches[name] = b.String()
	}
	return names, speeches
}

// maxText is the longest text for characters.
const maxText = 64 << 20

func windows(text, alphabet []rune, window int) Set {
	n := max(len(text)-1, 0) / window
	s := Set{Input: []int{window}, Targets: window, Classes: len(alphabet)}
	ids := make([]float32, min(n*window+1, len(text)))
	for i := range ids {
		c, _ := slices.BinarySearch(alphabet, text[i])
		ids[i] = float32(c)
	}
	if n > 0 {
		s.X, s.Y = ids[:n*window:n*window], slices.Clone(ids[1:])
	}
	return s
}
