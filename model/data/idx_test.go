package data

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// idxImages is a file of images of some height and width.
func idxImages(height, width int, images ...string) string {
	head := []byte{0, 0, 8, 3}
	for _, n := range []int{len(images), height, width} {
		head = binary.BigEndian.AppendUint32(head, uint32(n))
	}
	return string(head) + strings.Join(images, "")
}

func idxLabels(labels ...byte) string {
	return string(binary.BigEndian.AppendUint32([]byte{0, 0, 8, 1}, uint32(len(labels)))) + string(labels)
}

func pixelSchema(t testing.TB, pixels int) *Schema {
	t.Helper()
	s, err := PixelSchema("digits", pixels, "seven")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readIDX(s *Schema, images, labels string, positive int) (rows []Row, err error) {
	err = ReadIDX(strings.NewReader(images), strings.NewReader(labels), s, positive, func(n int, row Row) error {
		if rows = append(rows, row); n != len(rows) {
			return fmt.Errorf("image %d is the %d-th", n, len(rows))
		}
		return nil
	})
	return rows, err
}

func TestReadIDX(t *testing.T) {
	s := pixelSchema(t, 6)
	images := idxImages(2, 3, "\x00\x01\x02\x03\x04\x05", "\xff\xfe\xfd\xfc\xfb\xfa")
	want := []Row{{0, 1, 2, 3, 4, 5, 1}, {255, 254, 253, 252, 251, 250, 0}}
	for name, c := range map[string]struct {
		images, labels string
		positive       int
	}{
		"labels of two kinds": {images, idxLabels(1, 0), 0},
		"one label of ten":    {images, idxLabels(7, 9), 7},
		"gzip":                {string(zipped(t, images)), string(zipped(t, idxLabels(7, 0))), 7},
	} {
		rows, err := readIDX(s, c.images, c.labels, c.positive)
		if err != nil || !slices.EqualFunc(rows, want, equal) {
			t.Errorf("%s: %v, %v", name, rows, err)
		}
	}
	swapped := pixelSchema(t, 6) // columns in any order
	slices.Reverse(swapped.Columns)
	rows, err := readIDX(swapped, images, idxLabels(1, 0), 0)
	if err != nil || !equal(rows[0], Row{1, 5, 4, 3, 2, 1, 0}) {
		t.Errorf("%v, %v", rows, err)
	}
}

func TestReadIDXRefuses(t *testing.T) {
	s := pixelSchema(t, 4)
	images, labels := idxImages(2, 2, "abcd", "efgh"), idxLabels(1, 0)
	category := pixelSchema(t, 4)
	category.Columns[2] = Column{Name: "p2", Kind: Boolean}
	narrow := pixelSchema(t, 4)
	narrow.Columns[3].Max = 100 // 'd' is 100, 'h' is 104
	for name, c := range map[string]struct {
		schema         *Schema
		images, labels string
		positive       int
		want           string
	}{
		"no images":            {s, "", labels, 0, "images: the header is cut"},
		"header cut":           {s, images[:15], labels, 0, "images: the header is cut"},
		"swapped":              {s, labels + images, images, 0, "images: the file begins with 00000801, want 00000803"},
		"labels are images":    {s, images, images, 0, "labels: the file begins with 00000803"},
		"counts differ":        {s, images, idxLabels(1, 0, 1), 0, "2 images, but 3 labels"},
		"image cut":            {s, images[:len(images)-1], labels, 0, "images: the file ends within image 2 of 2"},
		"labels cut":           {s, images, labels[:len(labels)-1], 0, "labels: the file ends within label 2 of 2"},
		"images go on":         {s, images + "x", labels, 0, "images: the file goes on after its 2"},
		"labels go on":         {s, images, labels + "x", 0, "labels: the file goes on after its 2"},
		"gzip cut":             {s, string(zipped(t, images)[:30]), labels, 0, "images"},
		"label 7":              {s, images, idxLabels(0, 7), 0, "image 2: label 7 is neither 0 nor 1; say which label counts as true"},
		"positive of no byte":  {s, images, labels, 256, "positive label 256"},
		"too few columns":      {pixelSchema(t, 3), images, labels, 0, "2 × 2 pixels: schema digits has no numeric column p3"},
		"too many columns":     {pixelSchema(t, 5), images, labels, 0, "schema digits has 6 columns, want 4"},
		"a pixel of a kind":    {category, images, labels, 0, "no numeric column p2"},
		"a pixel out of range": {narrow, images, labels, 0, "image 2: column p3: 104 is outside [0, 100]"},
		"no pixels":            {s, idxImages(0, 4, "", ""), labels, 0, "0 × 4 pixels"},
		"too many pixels":      {s, idxImages(1<<20, 1<<20, "", ""), labels, 0, "pixels, want 1 to 4095"},
		"more than there are":  {s, "\x00\x00\x08\x03\xff\xff\xff\xff" + images[8:], labels, 0, "dimension 1 is 4294967295"},
	} {
		if _, err := readIDX(c.schema, c.images, c.labels, c.positive); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	full := errors.New("store is full")
	err := ReadIDX(strings.NewReader(images), strings.NewReader(labels), s, 0, func(int, Row) error { return full })
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "image 1") {
		t.Errorf("error of the callback: %v", err)
	}
	if s, err := PixelSchema("x", 1<<30, "y"); err == nil {
		t.Errorf("a schema of %d columns", len(s.Columns))
	}
}

// FuzzReadIDX: what is read fits the schema, and never more rows than the files' bytes hold.
func FuzzReadIDX(f *testing.F) {
	images, labels := idxImages(2, 2, "abcd", "efgh"), idxLabels(1, 0)
	f.Add([]byte(images), []byte(labels), 0)
	f.Add(zipped(f, images), []byte(idxLabels(7, 3)), 7)
	f.Add([]byte(images[:20]), zipped(f, labels), 300)
	s := pixelSchema(f, 4)
	f.Fuzz(func(t *testing.T, images, labels []byte, positive int) {
		n := 0
		err := ReadIDX(bytes.NewReader(images), bytes.NewReader(labels), s, positive, func(_ int, row Row) error {
			n++
			return s.check(row)
		})
		if err == nil && !bytes.HasPrefix(images, []byte{0x1F, 0x8B}) && len(images) != 16+4*n {
			t.Fatalf("%d images from %d bytes", n, len(images))
		}
		if err != nil && !strings.Contains(err.Error(), "IDX") && !strings.HasPrefix(err.Error(), "image ") {
			t.Fatalf("error without a place: %v", err)
		}
	})
}

// TestReadIDXClasses: a label that is a category takes the file's as its index.
func TestReadIDXClasses(t *testing.T) {
	s := pixelSchema(t, 4)
	s.Columns[4] = Column{Name: "seven", Kind: Category, Categories: []string{"coat", "bag", "boot"}}
	rows, err := readIDX(s, idxImages(2, 2, "abcd", "efgh"), idxLabels(2, 0), 0)
	if err != nil || rows[0].Label(s) != 2 || rows[1].Label(s) != 0 {
		t.Errorf("%v, %v", rows, err)
	}
	for want, c := range map[string]struct {
		label    byte
		positive int
	}{"image 1: column seven: 3 is not the index of a category": {3, 0}, "a positive label is for a boolean one": {1, 1}} {
		if _, err := readIDX(s, idxImages(2, 2, "abcd"), idxLabels(c.label), c.positive); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
