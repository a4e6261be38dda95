package data

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxPixels is how many columns a schema has room for beside the label.
const maxPixels = 4095

// ReadIDX reads images and their labels in the IDX format of MNIST (http://yann.lecun.com/exdb/mnist), each plain or
// gzip, and calls each for every image, counted from 1. Pixel k, row by row from 0, is the value 0 to 255 of the
// numeric column "pk" of the schema, which must have no other columns but its label. With a positive label, 1 to 255,
// the schema's label, a boolean, says whether an image has it; with 0, labels must be 0 or 1. A label that is a category
// takes the file's as its index, from 0. Files that do not belong together,
// are cut or are longer than they say are errors; the row that each receives is its own to keep.
func ReadIDX(images, labels io.Reader, s *Schema, positive int, each func(n int, row Row) error) error {
	if positive < 0 || positive > 255 {
		return fmt.Errorf("read IDX: positive label %d, want 1 to 255, or 0 for labels that are 0 and 1", positive)
	}
	x, err := openIDX("images", images, 0x803, 3)
	if err != nil {
		return err
	}
	y, err := openIDX("labels", labels, 0x801, 1)
	if err != nil {
		return err
	}
	if x.size[0] != y.size[0] {
		return fmt.Errorf("read IDX: %d images, but %d labels", x.size[0], y.size[0])
	}
	columns, err := s.pixels(x.size[1], x.size[2])
	if err != nil {
		return err
	}
	image, label := make([]byte, len(columns)), make([]byte, 1)
	for n := 1; n <= x.size[0]; n++ {
		if err := errors.Join(x.read(image, n), y.read(label, n)); err != nil {
			return err
		}
		row, err := s.image(columns, image, label[0], positive)
		if err == nil {
			err = each(n, row)
		}
		if err != nil {
			return fmt.Errorf("image %d: %w", n, err)
		}
	}
	return errors.Join(x.end(), y.end())
}

// PixelSchema is a schema for ReadIDX: numeric columns p0, p1 and so on of 0 to 255, and the label.
func PixelSchema(name string, pixels int, label string) (*Schema, error) {
	s := &Schema{Name: name, Label: label, Unit: "image"}
	for k := range min(pixels, maxPixels+1) {
		s.Columns = append(s.Columns, Column{Name: "p" + strconv.Itoa(k), Kind: Numeric, Max: 255, Required: true})
	}
	s.Columns = append(s.Columns, Column{Name: label, Kind: Boolean, Required: true})
	return s, s.Validate()
}

// pixels finds the column of each pixel.
func (s *Schema) pixels(height, width int) ([]int, error) {
	if height < 1 || width < 1 || height > maxPixels || width > maxPixels || height*width > maxPixels {
		return nil, fmt.Errorf("read IDX: images of %d × %d pixels, want 1 to %d in all", height, width, maxPixels)
	}
	columns := make([]int, height*width)
	for k := range columns {
		name := "p" + strconv.Itoa(k)
		if columns[k] = s.column(name); columns[k] < 0 || s.Columns[columns[k]].Kind != Numeric {
			return nil, fmt.Errorf("read IDX: images of %d × %d pixels: schema %s has no numeric column %s", height, width, s.Name, name)
		}
	}
	if len(s.Columns) != len(columns)+1 {
		return nil, fmt.Errorf("read IDX: schema %s has %d columns, want %d for the pixels and the label", s.Name, len(s.Columns), len(columns))
	}
	return columns, nil
}

// image makes a row of an image.
func (s *Schema) image(columns []int, pixels []byte, label byte, positive int) (Row, error) {
	row := make(Row, len(s.Columns))
	for k, c := range columns {
		row[c] = float64(pixels[k])
	}
	switch at, c := s.label(), &s.Columns[s.label()]; {
	case c.Kind != Boolean && positive > 0:
		return nil, fmt.Errorf("label %s is a %s column; a positive label is for a boolean one", c.Name, c.Kind)
	case c.Kind != Boolean:
		row[at] = float64(label)
	case positive > 0 && int(label) == positive, positive == 0 && label == 1:
		row[at] = 1
	case positive == 0 && label > 1:
		return nil, fmt.Errorf("label %d is neither 0 nor 1; say which label counts as true", label)
	}
	return row, s.check(row)
}

// idxFile is an IDX file whose header was read.
type idxFile struct {
	name string
	r    io.Reader
	size []int // of each dimension
}

func openIDX(name string, r io.Reader, magic uint32, dimensions int) (*idxFile, error) {
	plain, err := Decompress(r)
	if err != nil {
		return nil, fmt.Errorf("read IDX %s: %w", name, err)
	}
	f := &idxFile{name: name, r: bufio.NewReaderSize(plain, readAhead)}
	head := make([]byte, 4)
	if _, err := io.ReadFull(f.r, head); err != nil {
		return nil, fmt.Errorf("read IDX %s: the header is cut: %w", name, err)
	}
	if got := binary.BigEndian.Uint32(head); got != magic { // first: a file of the other kind may be shorter
		return nil, fmt.Errorf("read IDX %s: the file begins with %08x, want %08x; is it of another kind?", name, got, magic)
	}
	for i := range dimensions {
		if _, err := io.ReadFull(f.r, head); err != nil {
			return nil, fmt.Errorf("read IDX %s: the header is cut: %w", name, err)
		}
		n := binary.BigEndian.Uint32(head)
		if n > 1<<30 {
			return nil, fmt.Errorf("read IDX %s: dimension %d is %d", name, i+1, n)
		}
		f.size = append(f.size, int(n))
	}
	return f, nil
}

// read fills b with what belongs to image n.
func (f *idxFile) read(b []byte, n int) error {
	if _, err := io.ReadFull(f.r, b); err != nil {
		return fmt.Errorf("read IDX %s: the file ends within %s %d of %d: %w", f.name, strings.TrimSuffix(f.name, "s"), n, f.size[0], err)
	}
	return nil
}

// end sees that nothing follows.
func (f *idxFile) end() error {
	if n, err := io.ReadFull(f.r, make([]byte, 1)); n > 0 {
		return fmt.Errorf("read IDX %s: the file goes on after its %d %s", f.name, f.size[0], f.name)
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("read IDX %s: %w", f.name, err)
	}
	return nil
}
