package data

import (
	"fmt"
	"hash/fnv"
	"math/big"
	"slices"
	"strings"
	"testing"
)

func TestSplitWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"What can I do?":               "what|can|i|do",
		"  My card's not-here!\n\tOK ": "my|card's|not|here|ok",
		"don’t 'quote' rock'n'roll s'": "don't|quote|rock'n'roll|s",
		"£1.50 fee, 3%":                "£|1|50|fee|3|%",
		"ÄRGER Straße İstanbul":        "ärger|straße|istanbul",
		"e\u0301te\u0301 x\u0000y":     "e\u0301te\u0301|x|y", // a mark belongs to the word
		"お金ABC送":                       "お|金|abc|送",
		"деньги Ω٣":                    "деньги|ω٣",
		"a\xff\xfeb \xc3":              "a|b",
		"😀ok😀":                         "😀|ok|😀",
		"'''":                          "",
	} {
		if got := strings.Join(split(text), "|"); got != want {
			t.Errorf("%q is split into %q, want %q", text, got, want)
		}
	}
}

// grams are the n-grams of a text, spelt out.
func grams(tok Tokeniser, text string) (out []string) {
	words := split(text)
	for n := 1; n <= tok.Words; n++ {
		for i := 0; i+n <= len(words); i++ {
			out = append(out, "w"+strings.Join(words[i:i+n], " "))
		}
	}
	for _, w := range words {
		framed := []rune("<" + w + ">")
		for n := 3; n <= tok.Characters; n++ {
			for i := 0; i+n <= len(framed) && n < len(framed); i++ {
				out = append(out, "c"+string(framed[i:i+n]))
			}
		}
	}
	return out
}

// TestGrams: what is hashed, in order.
func TestGrams(t *testing.T) {
	got := strings.Join(grams(Tokeniser{2, 2, 4, 0}, "I owe 20"), "|")
	if want := "wi|wowe|w20|wi owe|wowe 20|c<ow|cowe|cwe>|c<owe|cowe>|c<20|c20>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestTokeniserAgainstItsText computes ids with the standard library's FNV and big integers, as the comment says.
func TestTokeniserAgainstItsText(t *testing.T) {
	const text = "Why wasn't my top-up of £20 added to the balance of my card yet?"
	for _, tok := range []Tokeniser{{1000, 1, 0, 0}, {2, 2, 0, 1}, {1<<24 - 1, 3, 6, 1 << 63}, {77, 0, 3, 5}} {
		var want []float32
		for _, gram := range grams(tok, text) {
			h := fnv.New64a()
			var seed [8]byte
			for i := range seed {
				seed[i] = byte(tok.Seed >> (8 * i))
			}
			_, _ = h.Write(append(seed[:], gram...))
			x := h.Sum64()
			x ^= x >> 33
			x *= 0xff51afd7ed558ccd
			x ^= x >> 33
			x *= 0xc4ceb9fe1a85ec53
			x ^= x >> 33
			id := new(big.Int).Mul(new(big.Int).SetUint64(x), big.NewInt(int64(tok.Buckets)))
			want = append(want, float32(id.Rsh(id, 64).Int64()+1))
		}
		all := make([]float32, len(want)+3)
		if n := tok.IDs(text, all); n != len(want) || !slices.Equal(all, append(slices.Clone(want), 0, 0, 0)) {
			t.Errorf("%+v: %d ids %v, want %v", tok, n, all, want)
		}
		few := []float32{9, 9, 9}
		if n := tok.IDs(text, few); n != 3 || !slices.Equal(few, want[:3]) {
			t.Errorf("%+v: the first of %d ids are %v, want %v", tok, n, few, want[:3])
		}
	}
}

// TestTokeniserIsFixed: the ids are those of every version, since rows and models hold them.
func TestTokeniserIsFixed(t *testing.T) {
	got := make([]float32, 8)
	Tokeniser{Buckets: 10000, Words: 2, Characters: 3, Seed: 7}.IDs("Lost CARD", got)
	if want := []float32{6860, 6661, 7471, 6467, 7604, 4789, 6529, 9777}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestTokeniserSpreads: 10,000 n-grams that differ in a character fall into 64 buckets about evenly. A bucket's count has
// a deviation of 12.4 around 156; 5 of them are what one in 3·10^4 runs of other hashes would pass.
func TestTokeniserSpreads(t *testing.T) {
	tok, counts, id := Tokeniser{Buckets: 64, Words: 1}, make([]int, 65), make([]float32, 1)
	for i := range 10_000 {
		tok.IDs(fmt.Sprintf("word%d", i), id)
		counts[int(id[0])]++
	}
	if counts[0] != 0 || slices.Min(counts[1:]) < 156-62 || slices.Max(counts) > 156+62 {
		t.Errorf("counts by id: %v", counts)
	}
}

func TestTokeniserValidate(t *testing.T) {
	for _, tok := range []Tokeniser{{0, 1, 0, 0}, {1, 1, 0, 0}, {1 << 24, 1, 0, 0}, {9, -1, 3, 0}, {9, 4, 0, 0}, {9, 1, 2, 0}, {9, 1, 7, 0}, {9, 0, 0, 0}} {
		if tok.Validate() == nil {
			t.Errorf("%+v is taken", tok)
		}
	}
}

func FuzzTokeniser(f *testing.F) {
	f.Add("What can I do?", 100, uint8(2), uint8(6), uint64(0), uint8(20))
	f.Add("ÄÖ\xff 'x' 金 €9", 2, uint8(0), uint8(3), uint64(1)<<63, uint8(0))
	f.Add(strings.Repeat("a", 300), 1<<24-1, uint8(3), uint8(5), uint64(3), uint8(255))
	f.Fuzz(func(t *testing.T, text string, buckets int, words, characters uint8, seed uint64, room uint8) {
		tok := Tokeniser{buckets, int(words), int(characters), seed}
		if tok.Validate() != nil {
			return
		}
		ids := make([]float32, room)
		n := tok.IDs(text, ids)
		if want := min(len(grams(tok, text)), len(ids)); n != want {
			t.Fatalf("%d ids, want %d", n, want)
		}
		for i, id := range ids {
			if used := id >= 1 && int(id) <= buckets && id == float32(int(id)); i < n && !used || i >= n && id != 0 {
				t.Fatalf("id %d of %d is %v", i, n, id)
			}
		}
		again := make([]float32, room)
		if tok.IDs(strings.ToUpper(text), again); isASCII(text) && !slices.Equal(ids, again) {
			t.Fatalf("%q has other ids in upper case", text)
		}
		c := Column{Kind: Text, Length: max(int(room), 1), Buckets: buckets, Words: int(words), Characters: int(characters), Seed: seed}
		values := make([]float64, c.Length)
		if err := c.read(text, values); err == nil && c.check(values, false) != nil {
			t.Fatalf("%q became %v: %v", text, values, c.check(values, false))
		}
	})
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 })
}
