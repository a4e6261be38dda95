package data

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// directory writes files of a data set.
func directory(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// realData is where the public data sets lie, each in a directory of its name.
func realData(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("CHOIR_DATA")
	if dir == "" {
		t.Skip("CHOIR_DATA names no directory with data sets")
	}
	return filepath.Join(dir, name)
}

func TestDivideSet(t *testing.T) {
	s := Set{Input: []int{2}, Targets: 1, Classes: 100}
	for i := range 50 {
		s.X, s.Y = append(s.X, float32(i), float32(-i)), append(s.Y, float32(i))
	}
	rest, part := s.Divide(.2, 4)
	if rest.Len() != 40 || part.Len() != 10 || !slices.IsSorted(rest.Y) || !slices.IsSorted(part.Y) || part.Classes != 100 || part.Values() != 2 {
		t.Errorf("%+v, %+v", rest, part)
	}
	for _, p := range []Set{rest, part} {
		for i, y := range p.Y {
			if p.X[2*i] != y || p.X[2*i+1] != -y {
				t.Errorf("example %v has inputs %v", y, p.X[2*i:2*i+2])
			}
		}
	}
	if all := slices.Sorted(slices.Values(slices.Concat(rest.Y, part.Y))); !slices.Equal(all, s.Y) {
		t.Errorf("targets %v", all)
	}
	if _, again := s.Divide(.2, 4); !slices.Equal(again.Y, part.Y) {
		t.Error("the same seed divides otherwise")
	}
	for share, want := range map[float64]int{-1: 0, 0: 0, 1: 50, 7: 50} {
		if _, part := s.Divide(share, 1); part.Len() != want {
			t.Errorf("share %v gives %d examples", share, part.Len())
		}
	}
}

func TestFashionMNIST(t *testing.T) {
	files := map[string]string{
		"train-images-idx3-ubyte.gz": string(zipped(t, idxImages(2, 3, "\x00\x33\x66\x99\xcc\xff", "\xff\xff\xff\xff\xff\xff"))),
		"train-labels-idx1-ubyte":    idxLabels(9, 0),
		"t10k-images-idx3-ubyte":     idxImages(2, 3, "\x00\x00\x00\x00\x00\x33"),
		"t10k-labels-idx1-ubyte.gz":  string(zipped(t, idxLabels(4))),
	}
	train, test, err := FashionMNIST(directory(t, files))
	want := []float32{0, .2, .4, .6, .8, 1, 1, 1, 1, 1, 1, 1}
	near := func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-6 }
	if err != nil || !slices.EqualFunc(train.X, want, near) || !slices.Equal(train.Y, []float32{9, 0}) || !slices.Equal(train.Input, []int{2, 3, 1}) {
		t.Errorf("%+v, %v", train, err)
	}
	if test.Len() != 1 || test.Classes != 10 || test.Targets != 1 || !near(test.X[5], .2) || test.Y[0] != 4 {
		t.Errorf("%+v", test)
	}
	for name, text := range map[string]string{
		"train-labels-idx1-ubyte: 3 labels for 2 images":               idxLabels(1, 2, 3),
		"train-labels-idx1-ubyte: label 2 is 10, want 0 to 9":          idxLabels(1, 10),
		"train-labels-idx1-ubyte: read IDX labels: the header is cut":  "",
		"t10k-labels-idx1-ubyte.gz: read IDX labels: the file begins":  string(zipped(t, idxImages(1, 1, "x"))),
		"t10k-images-idx3-ubyte: 0 images":                             idxImages(2, 3),
		"t10k-images-idx3-ubyte: 1 images of 4096 × 1 pixels":          idxImages(4096, 1, "x"),
		"t10k-images-idx3-ubyte: read IDX images: the file goes on":    idxImages(2, 3, "abcdef", "ghijkl")[:16+6] + "x",
		"t10k-images-idx3-ubyte: read IDX images: the file ends with":  idxImages(2, 3, "abcde"),
		"images to learn from are [2 3 1], those to test with [3 2 1]": idxImages(3, 2, "abcdef"),
	} {
		file, _, found := strings.Cut(name, ": ")
		if !found {
			file = "t10k-images-idx3-ubyte"
		}
		old := files[file]
		files[file] = text
		if strings.Contains(name, "goes on") {
			files[file] = idxImages(2, 3, "abcdef") + "x"
		}
		if _, _, err := FashionMNIST(directory(t, files)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
		files[file] = old
	}
	delete(files, "t10k-images-idx3-ubyte")
	if _, _, err := FashionMNIST(directory(t, files)); err == nil || !strings.Contains(err.Error(), "t10k-images-idx3-ubyte: no such file") {
		t.Error(err)
	}
}

func TestBANKING77(t *testing.T) {
	tok := Tokeniser{Buckets: 5000, Words: 2}
	files := map[string]string{
		"train.csv": "text,category\n\"Lost, my card\",lost\nWhat fee?,fee\nWhere?,card\n",
		"test.csv":  "category,text\nlost,\"Gone\nis it\"\n",
	}
	train, test, categories, err := BANKING77(directory(t, files), tok, 4)
	if err != nil || !slices.Equal(categories, []string{"card", "fee", "lost"}) || !slices.Equal(train.Y, []float32{2, 1, 0}) || !slices.Equal(test.Y, []float32{2}) {
		t.Fatalf("%+v, %+v, %v, %v", train, test, categories, err)
	}
	want := make([]float32, 4)
	for i, text := range []string{"Lost, my card", "What fee?", "Where?"} {
		if tok.IDs(text, want); !slices.Equal(train.X[4*i:4*i+4], want) {
			t.Errorf("%s: %v, want %v", text, train.X[4*i:4*i+4], want)
		}
	}
	if train.Classes != 3 || test.Classes != 3 || test.Len() != 1 || test.Values() != 4 {
		t.Errorf("%+v", test)
	}
	for name, text := range map[string]string{
		"test.csv: line 2: category \"gone\" is not among": "text,category\na,gone\n",
		"test.csv: header: ": "",
		"test.csv: line 1: columns [\"text\" \"class\"], want text": "text,class\n",
		"test.csv: record on line 2: wrong number":                  "text,category\na\n",
		"test.csv: line 3: the category is empty":                   "text,category\na,fee\na,\n",
		"test.csv: line 2: the category is empty, or the text is":   "text,category\na\xff,fee\n",
		"test.csv: no texts":                                        "text,category\n",
		"train.csv: 1 categories, want":                             "text,category\na,fee\n",
		"train.csv: no texts":                                       "text,category\n",
		"tokenise texts: length 0":                                  "",
		"tokenise texts: 0 buckets, want":                           "",
	} {
		file, _, _ := strings.Cut(name, ":")
		old, length, tok := files[file], 4, tok
		switch name {
		case "tokenise texts: length 0":
			length = 0
		case "tokenise texts: 0 buckets, want":
			tok.Buckets = 0
		}
		files[file] = text
		if _, _, _, err := BANKING77(directory(t, files), tok, length); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
		files[file] = old
	}
}

// TestTinyShakespeare: of 30 characters 27 are to learn from, which are 13 windows of two and the one after.
func TestTinyShakespeare(t *testing.T) {
	text := strings.Repeat("ab\nab", 4) + "é" + strings.Repeat("a", 9) // 30 characters
	dir := directory(t, map[string]string{"input.txt.gz": string(zipped(t, text))})
	train, validation, alphabet, err := TinyShakespeare(dir, 2)
	if err != nil || string(alphabet) != "\nabé" || train.Len() != 13 || validation.Len() != 1 || validation.Targets != 2 {
		t.Fatalf("%+v, %+v, %q, %v", train, validation, string(alphabet), err)
	}
	runes := []rune(text)
	for i, x := range train.X {
		if alphabet[int(x)] != runes[i] || alphabet[int(train.Y[i])] != runes[i+1] {
			t.Errorf("character %d is %q before %q", i, alphabet[int(x)], alphabet[int(train.Y[i])])
		}
	}
	if !slices.Equal(validation.X, []float32{1, 1}) || !slices.Equal(validation.Y, []float32{1, 1}) {
		t.Errorf("%+v", validation)
	}
	for want, c := range map[string]struct {
		text   string
		window int
	}{
		"30 characters are too few for windows of 3": {text, 3},
		"windows of 0 characters, want 1 to 4096":    {text, 0},
		"input.txt: 0 characters are too few":        {"", 1},
		"input.txt: the text is not UTF-8":           {"\xff", 1},
	} {
		if _, _, _, err := TinyShakespeare(directory(t, map[string]string{"input.txt": c.text}), c.window); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestOnlineRetail: customer 2 buys 9, 4, 9 again, 7, 5 and, with its minutes out of order, 6 before all of them.
func TestOnlineRetail(t *testing.T) {
	files := map[string]string{"purchases.csv": `customer,country,minute,item
2,4,10,9
0,7,1,1
2,4,10,4
2,4,11,9
0,7,2,2
2,4,12,7
2,4,13,5
2,4,9,6
0,7,3,10
`}
	h, err := OnlineRetail(directory(t, files), 3)
	if err != nil || h.MaxUser != 3 || h.MaxItem != 11 || fmt.Sprint(*h) != "{3 11 [1 3] [[2] [7 10 5]] [3 8] [11 6] [7 4]}" {
		t.Fatalf("%+v, %v", h, err)
	}
	nowhere := strings.ReplaceAll(files["purchases.csv"], "country", "county")
	if other, err := OnlineRetail(directory(t, map[string]string{"purchases.csv": nowhere}), 3); err != nil || other.Country != nil {
		t.Errorf("without countries: %+v, %v", other, err)
	}
	w := h.Windows(2)
	if fmt.Sprint(w.X, w.Y, w.Classes) != "[0 7 7 10] [10 5] 12" {
		t.Errorf("%+v", w)
	}
	for test, want := range map[bool]string{
		false: "[0 0 2 7 10 5] [3 8] [[2] [7 10 5]]",
		true:  "[0 2 3 10 5 8] [11 6] [[2 3] [7 10 5 8]]",
	} {
		q, seen := h.Queries(3, test)
		if fmt.Sprint(q.X, q.Y, seen) != want {
			t.Errorf("%v %v %v, want %s", q.X, q.Y, seen, want)
		}
	}
	p := h.Pairs(2, 1)
	if p.Len() != 12 || p.Values() != 2 || p.Classes != 1 {
		t.Errorf("%+v", p)
	}
	for i, y := range p.Y {
		user, item := p.X[2*i], int32(p.X[2*i+1])
		u := slices.Index(h.User, int32(user))
		if (y == 1) != slices.Contains(h.Train[u], item) || y == 1 != (i%3 == 0) || item < 1 || int(item) > h.MaxItem {
			t.Errorf("user %v, item %d: %v", user, item, y)
		}
	}
	if h, err = OnlineRetail(directory(t, files), 4); err != nil || len(h.User) != 1 || h.MaxItem != 11 {
		t.Errorf("%+v, %v", h, err)
	}
	for text, want := range map[string]string{
		"customer,item\n1,2\n":                 "purchases.csv: line 1: columns",
		"customer,minute,item\n1,2\n":          "purchases.csv: record on line 2",
		"customer,minute,item\n1,2,x\n":        "purchases.csv: line 2: column item: \"x\" is not a whole number",
		"customer,minute,item\n1,2,16777215":   "line 2: column item: \"16777215\" is not a whole number from 0 to 16777214",
		"customer,minute,item\n-1,2,3":         "line 2: column customer: \"-1\"",
		"customer,minute,item\n1,NaN,3":        "line 2: column minute: \"NaN\"",
		"customer,minute,item\n1,2,3\n1,3,4\n": "purchases.csv: no user has 3 items",
		"":                                     "purchases.csv: header",
	} {
		if _, err := OnlineRetail(directory(t, map[string]string{"purchases.csv": text}), 3); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := OnlineRetail(t.TempDir(), 2); err == nil || !strings.Contains(err.Error(), "at least 3") {
		t.Error(err)
	}
}

// TestPairsOfWhoHasAll: who has all items gets no negatives, instead of a search without end.
func TestPairsOfWhoHasAll(t *testing.T) {
	h := &Histories{MaxUser: 1, MaxItem: 2, User: []int32{1}, Train: [][]int32{{1, 2}}, Validation: []int32{1}, Test: []int32{2}}
	if p := h.Pairs(3, 1); !slices.Equal(p.Y, []float32{1, 1}) {
		t.Errorf("%+v", p)
	}
}

func TestTabular(t *testing.T) {
	s, rows, _, err := Shoppers()
	if err != nil {
		t.Fatal(err)
	}
	train, validation, test, stats, err := Tabular(s, rows, 1)
	if err != nil || train.Len()+validation.Len()+test.Len() != len(rows) || train.Values() != s.Features() || train.Classes != 1 {
		t.Fatalf("%d, %d, %d, %v", train.Len(), validation.Len(), test.Len(), err)
	}
	parts := Split(s, rows, 1)
	want, _ := stats.Matrix(parts.Held)
	if !slices.Equal(test.X, want) || !bytes.Equal(stats.Encode(), func() []byte { st, _ := NewStatistics(s, Collect(s, parts.Train)); return st.Encode() }()) {
		t.Error("the test part is not standardised by what is learnt from")
	}
	if _, _, _, _, err := Tabular(s, rows[:1], 1); err == nil {
		t.Error("one row is taken")
	}
}

// TestPublishedSplits reads the real data sets, where they are: their sizes, and for purchases the digest of the split
// that others compare with.
func TestPublishedSplits(t *testing.T) {
	train, test, err := FashionMNIST(realData(t, "fashion-mnist"))
	if err != nil || train.Len() != 60_000 || test.Len() != 10_000 {
		t.Fatal(train.Len(), test.Len(), err)
	}
	sum := 0.0
	for _, v := range train.X {
		sum += float64(v)
	}
	if mean := sum / float64(len(train.X)); math.Abs(mean-.28604) > 1e-5 {
		t.Errorf("mean %v", mean)
	}
	questions, held, categories, err := BANKING77(realData(t, "banking77"), Tokeniser{Buckets: 20_000, Words: 2}, 64)
	if err != nil || questions.Len() != 10_003 || held.Len() != 3080 || len(categories) != 77 {
		t.Fatal(questions.Len(), held.Len(), len(categories), err)
	}
	chars, validation, alphabet, err := TinyShakespeare(realData(t, "tinyshakespeare"), 64)
	if err != nil || len(alphabet) != 65 || chars.Len() != (1_003_854-1)/64 || validation.Len() != (111_540-1)/64 {
		t.Fatal(chars.Len(), validation.Len(), len(alphabet), err)
	}
	h, err := OnlineRetail(realData(t, "online-retail"), 5)
	if err != nil || len(h.User) != 4076 || h.MaxItem != 3659 {
		t.Fatal(h, err)
	}
	digest := sha256.New()
	for u, items := range h.Train {
		fmt.Fprintf(digest, "item %d %d %d", h.User[u]-1, h.Test[u]-1, h.Validation[u]-1)
		for _, item := range items {
			fmt.Fprintf(digest, " %d", item-1)
		}
		fmt.Fprintln(digest)
	}
	if got := fmt.Sprintf("%x", digest.Sum(nil)); got != "1fc7096bd16d0ef9da852690b1a5846beea8e0d49b56af075aeea1ba408bc25c" {
		t.Errorf("digest of the split %s", got)
	}
}
