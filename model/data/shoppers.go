package data

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
)

//go:embed shoppers/online_shoppers_intention.csv.gz
var shoppersCSV []byte

//go:embed shoppers/schema.json
var shoppersSchema []byte

//go:embed shoppers/NOTICE
var shoppersNotice string

// ShoppersNotice is the source and licence of the built-in data set.
func ShoppersNotice() string { return shoppersNotice }

// ShoppersSchema is the schema of the built-in data set: web-shop sessions, and whether they ended in a purchase.
func ShoppersSchema() (*Schema, error) { return ParseSchema(shoppersSchema) }

// ShoppersCSV is the built-in data set as published: 12,330 web-shop sessions (CC BY 4.0, see ShoppersNotice).
func ShoppersCSV() ([]byte, error) {
	zr, err := gzip.NewReader(bytes.NewReader(shoppersCSV))
	if err != nil {
		return nil, fmt.Errorf("open built-in data: %w", err)
	}
	b, err := io.ReadAll(zr)
	if err != nil {
		return nil, fmt.Errorf("read built-in data: %w", err)
	}
	return b, nil
}

// Shoppers is the built-in data set as rows, and the region, 1 to 9, of each row.
func Shoppers() (s *Schema, rows []Row, regions []int, err error) {
	if s, err = ShoppersSchema(); err != nil {
		return nil, nil, nil, err
	}
	text, err := ShoppersCSV()
	if err != nil {
		return nil, nil, nil, err
	}
	err = ReadCSV(bytes.NewReader(text), "online_shoppers_intention.csv", s, func(_ int, row Row) error {
		rows = append(rows, row)
		return nil
	})
	if err != nil {
		return nil, nil, nil, err
	}
	regions, err = shoppersRegions(text)
	return s, rows, regions, err
}

// shoppersRegions reads the column that the schema ignores: it says who holds a row, and is no feature.
func shoppersRegions(text []byte) ([]int, error) {
	all, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read built-in data: %w", err)
	}
	column := -1
	for i, name := range all[0] {
		if name == "Region" {
			column = i
		}
	}
	if column < 0 {
		return nil, fmt.Errorf("read built-in data: no column Region")
	}
	var regions []int
	for _, fields := range all[1:] {
		r, err := strconv.Atoi(fields[column])
		if err != nil {
			return nil, fmt.Errorf("read built-in data: region %q", fields[column])
		}
		regions = append(regions, r)
	}
	return regions, nil
}
