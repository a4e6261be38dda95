package node

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"choir.example/model/data"
)

// heldNode is a running node that no coordinator asks for anything, and its owner's connection.
func heldNode(t *testing.T) (*Node, *Controller) {
	t.Helper()
	p := newParty(t, "test")
	s := newShop().service()
	s.poll = hold
	p.coordinator("c1", s)
	n := p.node(t.TempDir(), withControl, "c1")
	return n, running(t, n)
}

// The owner of a running node does with its data what can be done with a stopped one's.
func TestDataOfARunningNode(t *testing.T) {
	n, c := heldNode(t)
	if s, err := c.Schema(t.Context()); err != nil || s != nil {
		t.Errorf("the schema before: %v, %v", s, err)
	}
	if err := c.SetSchema(t.Context(), toySchema(t)); err != nil {
		t.Fatal(err)
	}
	csv := strings.ReplaceAll(toyCSV(3000), ",", ";") + "broken\n"
	src := Source{Name: "a.csv", Shares: Shares{50, 30, 20}, CSV: data.CSV{SkipBad: 1}}
	done, err := c.Import(t.Context(), strings.NewReader(csv), src)
	if err != nil || done.Added != 3000 || done.Skipped.Rows != 1 || done.Import.Held == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	again, err := c.Import(t.Context(), strings.NewReader(csv), src)
	if err != nil || !again.Already || again.Added != 0 || again.Import != done.Import {
		t.Errorf("%+v, %v", again, err)
	}
	_, err = c.Import(t.Context(), strings.NewReader(toyCSV(100_000)+"broken\n"), Source{Name: "bad.csv"})
	wantError(t, err, "bad.csv:100002", "wrong number of fields")
	list, err := c.List(t.Context())
	if err != nil || fmt.Sprint(list) != fmt.Sprint(n.store.List()) || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}

	lock, unlock := lockPair(t)
	var out bytes.Buffer
	if err := c.Backup(t.Context(), &out, lock); err != nil {
		t.Fatal(err)
	}
	before := contents(t, n.store)
	_, err = c.Restore(t.Context(), bytes.NewReader(out.Bytes()), unlock, 0)
	wantError(t, err, "it holds rows")
	if gone, err := c.Delete(t.Context(), done.Import.ID[:6]); err != nil || gone.Rows != 3000 {
		t.Errorf("%v, %v", gone, err)
	}
	_, err = c.Delete(t.Context(), done.Import.ID)
	wantError(t, err, "no such import")
	if _, err := c.Restore(t.Context(), &out, unlock, 0); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, n.store); got != before {
		t.Errorf("restored: %.300s\nwant %.300s", got, before)
	}
}

// Images and labels go over the socket in one stream, although they are read side by side.
func TestImagesOfARunningNode(t *testing.T) {
	n, c := heldNode(t)
	schema, err := data.PixelSchema("digits", 784, "seven")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetSchema(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	const count = 300 // more bytes than are read ahead
	images := []byte("\x00\x00\x08\x03\x00\x00\x01\x2c\x00\x00\x00\x1c\x00\x00\x00\x1c")
	labels := []byte("\x00\x00\x08\x01\x00\x00\x01\x2c")
	for i := range count {
		images, labels = append(images, bytes.Repeat([]byte{byte(i)}, 784)...), append(labels, byte(i%10))
	}
	src := Source{Name: "digits", Labels: "names", Part: Train, Positive: 7}
	done, err := c.ImportIDX(t.Context(), bytes.NewReader(images), int64(len(images)), bytes.NewReader(labels), src)
	if err != nil || done.Added != count {
		t.Fatalf("%+v, %v", done, err)
	}
	rows, err := n.store.Rows(Train)
	if err != nil || rows[17][0] != 17 || rows[17][784] != 1 || rows[18][784] != 0 {
		t.Errorf("%v", err)
	}
	_, err = c.ImportIDX(t.Context(), bytes.NewReader(images), int64(len(images)), strings.NewReader(""), src)
	wantError(t, err, "the file of labels, names, is empty")
	_, err = c.ImportIDX(t.Context(), bytes.NewReader(images), 5000, bytes.NewReader(labels), src)
	wantError(t, err, "digits, names: read IDX images: the file ends within image 7 of 300")
	if errors.As(err, new(*data.BadRow)) {
		t.Error("a file that is cut counts as a bad row")
	}
}

// The format of a file goes over the socket.
func TestFormatOfARunningNode(t *testing.T) {
	n, c := heldNode(t)
	schema, err := data.PixelSchema("small", 1, "big")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetSchema(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	done, err := c.Import(t.Context(), strings.NewReader(`{"p0":7,"big":true}`), Source{Name: "x.jsonl", Part: Train, Format: data.FormatJSONL})
	if err != nil || done.Added != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	rows, err := n.store.Rows(Train)
	if err != nil || len(rows) != 1 || rows[0][0] != 7 || rows[0][1] != 1 {
		t.Errorf("%v, %v", rows, err)
	}
	_, err = c.Import(t.Context(), strings.NewReader(`{"p0":7,"large":true}`), Source{Name: "y.jsonl", Format: data.FormatJSONL})
	wantError(t, err, "y.jsonl:1: key", "large")
	if !errors.As(err, new(*data.BadRow)) {
		t.Error("a bad row is not known as one beyond the socket")
	}
	_, err = c.Import(t.Context(), strings.NewReader("large\n7\n"), Source{Name: "z.csv"})
	if wantError(t, err, "z.csv:1: column", "large"); errors.As(err, new(*data.BadRow)) {
		t.Error("a header counts as a bad row")
	}
}
