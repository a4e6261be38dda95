package data

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

func stores(t *testing.T) *Schema {
	t.Helper()
	s, err := ParseSchema([]byte(`{"name": "v", "unit": "visit", "label": "buys", "ignore": ["store"], "columns": [
		{"name": "price", "kind": "numeric", "max": 9}, {"name": "buys", "kind": "boolean", "required": true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestColumn(t *testing.T) {
	s := stores(t)
	for _, c := range []struct {
		format             Format
		text, column, want string
	}{
		{FormatCSV, "store; price;buys\n north ;1;1\n\"a\nb\";2;0\n;3;1\n", "store", "2 north|3 a\nb|5 |"},
		{"", "price,buys,store\n1,1,x\n", "price", "2 1|"},
		{FormatJSONL, `{"store": "north", "price": 1, "buys": true}` + "\n" + `{"store": 7, "buys": true}` + "\n" + `{"buys": false}`, "store", "1 north|2 7|3 |"},
	} {
		got := ""
		err := c.format.Column(strings.NewReader(c.text), "f", s, c.column, func(line int, text string) error {
			got += fmt.Sprintf("%d %s|", line, text)
			return nil
		})
		if err != nil || got != c.want {
			t.Errorf("%q, %v, want %q", got, err, c.want)
		}
	}
	stop := errors.New("stop")
	for _, c := range []struct {
		format     Format
		text, want string
	}{
		{FormatCSV, "price,buys\n1,1\n", `f:1: there is no column "store" among price, buys`},
		{FormatCSV, "price,store,buys\n1,1\n", "f:2: wrong number of fields"},
		{FormatCSV, "price,store,buys\n1,1,1\n", "f:2: stop"},
		{FormatCSV, "", "f:1: the file is empty"},
		{FormatJSONL, "{}\n{", "f:1: stop"},
		{FormatJSONL, "[1]\n", "f:1: json: cannot unmarshal"},
		{FormatText, "1\tx\n", `a file of format "text" has none`},
	} {
		err := c.format.Column(strings.NewReader(c.text), "f", s, "store", func(int, string) error { return stop })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

// Rows of a shop are the file's, and their users those of the column that its schema ignores.
func TestShopRows(t *testing.T) {
	shop, err := GenerateShop(4, 9, 5, 200)
	if err != nil {
		t.Fatal(err)
	}
	schema, rows, users, err := shop.Rows()
	if err != nil || len(rows) != 200 || len(users) != 200 || schema.Name != "shop" {
		t.Fatal(len(rows), len(users), err)
	}
	var text strings.Builder
	if err := shop.Sessions(&text, &strings.Builder{}, nil); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(text.String(), "\n")[1:]
	for i, u := range users {
		if want := strings.Split(lines[i], ",")[1]; fmt.Sprint("u", u+1) != want {
			t.Fatalf("session %d is of user %d, want %s", i, u, want)
		}
	}
}

const leafText = `{"train": {"users": ["b", "a"], "num_samples": [2, 1], "user_data": {"a": {"x": [[5, 6]], "y": [2]}, "b": {"x": [[1, 2], [3, 4]], "y": [0, 1]}}},
	"test": {"users": ["a"], "hierarchies": [], "user_data": {"a": {"x": [[7, 8.5]], "y": [3]}}}}`

func TestLEAF(t *testing.T) {
	for _, text := range []string{leafText, string(zipped(t, leafText))} {
		train, test, owners, users, err := LEAF(directory(t, map[string]string{"f.json": text}) + "/f.json")
		if err != nil || !slices.Equal(train.X, []float32{1, 2, 3, 4, 5, 6}) || !slices.Equal(train.Y, []float32{0, 1, 2}) || !slices.Equal(owners, []int32{0, 0, 1}) {
			t.Fatalf("%+v, %v, %v", train, owners, err)
		}
		if !slices.Equal(test.X, []float32{7, 8.5}) || test.Classes != 4 || train.Classes != 4 || train.Len() != 3 || !slices.Equal(users, []string{"b", "a"}) {
			t.Errorf("%+v, %v", test, users)
		}
	}
}

func TestLEAFRefuses(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{`"y": [0, 1]`, `"y": [0]`, `train: user "b": 2 x and 1 y`},
		{`"num_samples": [2, 1]`, `"num_samples": [3, 1]`, `train: user "b": 2 x and 2 y, and num_samples [3]`},
		{`[3, 4]`, `[3]`, `train: user "b": example 2: 1 values, want 2`},
		{`"y": [2]`, `"y": [1.5]`, `train: user "a": example 1: y is 1.5, want a class`},
		{`"y": [2]`, `"y": [-1]`, `y is -1, want a class`},
		{`"y": [2]`, `"y": [70000]`, `want fewer than 65536 classes`},
		{`"y": [2]`, `"y": ["two"]`, `json: cannot unmarshal`},
		{`[5, 6]`, `[5, 1e60]`, `json: cannot unmarshal number 1e60`},
		{`[7, 8.5]`, `[7]`, "examples of train have 2 values, those of test 1"},
		{`"users": ["b", "a"]`, `"users": ["b"]`, "train: 1 users, and user_data of 2"},
		{`"users": ["b", "a"]`, `"users": ["b", "c"]`, `train: user "c" has no user_data`},
		{`"test"`, `"tests"`, "unknown field"},
		{`, "hierarchies"`, `}}, {`, "text after the object, at byte 173"},
		{leafText, `{"train": {"users": []}}`, "no train or no test"},
		{leafText, `{"train": {"users": [], "user_data": {}}, "test": {}}`, "train: no examples"},
		{leafText, leafText + "{", "text after the object"},
		{leafText, "", "EOF"},
	} {
		path := directory(t, map[string]string{"f.json": strings.Replace(leafText, c.old, c.new, 1)}) + "/f.json"
		_, _, _, _, err := LEAF(path)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
	if _, _, _, _, err := LEAF("nothing.json"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func FuzzLEAF(f *testing.F) {
	f.Add([]byte(leafText))
	f.Add([]byte(`{"train": {}, "test": {}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := t.TempDir() + "/f.json"
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		train, test, owners, _, err := LEAF(path)
		if err == nil && (train.Len() != len(owners) || train.Len() == 0 || test.Len() == 0 || len(train.X) != train.Len()*train.Values()) {
			t.Errorf("%d examples of %d owners, %d to test with", train.Len(), len(owners), test.Len())
		}
	})
}
