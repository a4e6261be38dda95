package data

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// schemaKeys are the keys of a schema's two objects, exactly as they are written.
var schemaKeys = []string{
	"name", "columns", "label", "unit", "ignore",
	"kind", "min", "max", "categories", "longTail", "required",
	"length", "buckets", "words", "characters", "seed", "of", "by",
}

// checkKeys refuses JSON that encoding/json reads silently: keys in another case, keys given twice, of which the last
// would win, null and text after the end.
func checkKeys(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := checkValue(d, 0); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the end")
	}
	return nil
}

// checkValue reads one value. A schema nests four deep: object, columns, column, categories.
func checkValue(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if t == nil {
		return errors.New("null is not a value")
	}
	open, nested := t.(json.Delim)
	if !nested {
		return nil
	}
	if depth == 4 {
		return errors.New("nested too deep")
	}
	var seen []string
	for d.More() {
		if open == '{' {
			key, err := checkKey(d, seen)
			if err != nil {
				return err
			}
			seen = append(seen, key)
		}
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

func checkKey(d *json.Decoder, seen []string) (string, error) {
	t, err := d.Token()
	if err != nil {
		return "", err
	}
	key, ok := t.(string)
	if !ok || !slices.Contains(schemaKeys, key) {
		return "", fmt.Errorf("unknown field %q", key)
	}
	if slices.Contains(seen, key) {
		return "", fmt.Errorf("field %q is given twice", key)
	}
	return key, nil
}
