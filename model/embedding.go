package model

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"choir.example/model/kernel"
)

// embedding replaces each id by its row of a table. With one table, which all ids share, an example of ids becomes a
// sequence of rows. With a table for each of several columns, the rows of one position are joined to one.
type embedding struct {
	shape   []int
	width   int   // of the input's last axis
	columns []int // of it that are read
	first   []int // of each of these, the first row of its table
	tables  []int // rows of each table
	dim     int
}

func newEmbedding(l LayerSpec, in [][]int) (layer, error) {
	last := len(in[0]) - 1
	e := &embedding{width: in[0][last], columns: l.Columns, tables: l.Rows, dim: l.Dim}
	if err := between("dim", l.Dim, 1, maxWidth); err != nil {
		return nil, err
	}
	if err := e.checkColumns(); err != nil {
		return nil, err
	}
	total, err := countRows(l.Rows, l.Dim)
	if err != nil {
		return nil, err
	}
	e.first = make([]int, len(e.columns))
	if len(l.Rows) == 1 {
		e.shape = append(slices.Clone(in[0][:last]), len(e.columns), l.Dim)
		return e, nil
	}
	if len(l.Rows) != len(e.columns) {
		return nil, fmt.Errorf("%d tables for %d columns, want one for each, or one for all", len(l.Rows), len(e.columns))
	}
	for i := len(l.Rows) - 1; i >= 0; i-- {
		total -= l.Rows[i]
		e.first[i] = total
	}
	e.shape = append(slices.Clone(in[0][:last]), len(e.columns)*l.Dim)
	return e, nil
}

// checkColumns refuses columns that the input does not have. Without any, all are read.
func (e *embedding) checkColumns() error {
	for _, c := range e.columns {
		if c < 0 || c >= e.width {
			return fmt.Errorf("column %d of %d", c, e.width)
		}
	}
	if len(e.columns) > e.width {
		return fmt.Errorf("%d columns of %d", len(e.columns), e.width)
	}
	if e.columns == nil {
		for c := range e.width {
			e.columns = append(e.columns, c)
		}
	}
	return nil
}

// maxRows bounds a table: a float32 holds every whole number up to it.
const maxRows = 1 << 24

// countRows is the number of rows of all tables, bounded.
func countRows(tables []int, dim int) (int, error) {
	if len(tables) < 1 || len(tables) > maxLayers {
		return 0, fmt.Errorf("%d tables, want 1 to %d", len(tables), maxLayers)
	}
	total := int64(0)
	for _, rows := range tables {
		if err := between("rows", rows, 1, maxRows); err != nil {
			return 0, err
		}
		total += int64(rows)
	}
	if total*int64(dim) > maxParameters {
		return 0, fmt.Errorf("%d rows of %d values, at most 2^28 values", total, dim)
	}
	return int(total), nil
}

func (e *embedding) output() []int   { return e.shape }
func (e *embedding) scratch(int) int { return 0 }
func (e *embedding) work(int) int    { return 0 }
func (e *embedding) flops() int64    { return 0 }

func (e *embedding) rows() (rows, length int) {
	for _, r := range e.tables {
		rows += r
	}
	return rows, e.dim
}

func (e *embedding) size() int {
	rows, length := e.rows()
	return rows * length
}

func (e *embedding) tensors() []Tensor {
	return tableTensors(e.tables, e.dim)
}

// tableTensors are tables that lie one after the other.
func tableTensors(tables []int, dim int) []Tensor {
	var ts []Tensor
	at := 0
	for i, rows := range tables {
		name := "weight"
		if len(tables) > 1 {
			name = fmt.Sprint("weight", i)
		}
		ts = append(ts, Tensor{Name: name, Shape: []int{rows, dim}, Offset: at, Table: true})
		at += rows * dim
	}
	return ts
}

// init draws rows of length about 1.
func (e *embedding) init(params []float32, rng *rand.Rand) { glorot(params, e.dim, e.dim, 1, rng) }

// table is how many rows the table of column j has.
func (e *embedding) table(j int) int {
	if len(e.tables) > 1 {
		return e.tables[j]
	}
	return e.tables[0]
}

// row is the row that column j of a position names, -1 if there is none.
func (e *embedding) row(position []float32, j int) int {
	r := id(position[e.columns[j]], e.table(j))
	if r < 0 {
		return r
	}
	return e.first[j] + r
}

func (e *embedding) badID(in []float32) (at, rows int) {
	for p := 0; p < len(in); p += e.width {
		for j, c := range e.columns {
			if e.row(in[p:], j) < 0 || in[p+c] != float32(int(in[p+c])) {
				return p + c, e.table(j)
			}
		}
	}
	return -1, 0
}

func (e *embedding) reads(each func(column, rows int)) {
	for j, c := range e.columns {
		each(c, e.table(j))
	}
}

func (e *embedding) read(in []float32, rows *rowSet) {
	for ; len(in) > 0; in = in[e.width:] {
		for j := range e.columns {
			rows.add(e.row(in, j))
		}
	}
}

// forward: an id without a row, which only a prediction can have, reads as zeros.
func (e *embedding) forward(p *pass) {
	in, out := e.examples(p), p.out
	for ; len(in) > 0; in = in[e.width:] {
		for j := range e.columns {
			if r := e.row(in, j); r >= 0 {
				copy(out[:e.dim], p.params[r*e.dim:])
			} else {
				clear(out[:e.dim])
			}
			out = out[e.dim:]
		}
	}
}

// examples are the values of the batch's examples.
func (e *embedding) examples(p *pass) []float32 {
	return p.in[0][:p.n*values(e.shape)/(e.dim*len(e.columns))*e.width]
}

// backward adds to rows in the order of the batch: one that it names twice gets both steps.
func (e *embedding) backward(p *pass) {
	if p.grad != nil {
		p.rows.clear()
	}
	in, dout := e.examples(p), p.dout
	for ; len(in) > 0; in = in[e.width:] {
		for j := range e.columns {
			p.addToRow(e.row(in, j), dout[:e.dim], 1)
			dout = dout[e.dim:]
		}
	}
}

// addToRow gives a row of the parameters scale·d as its gradient, or a part of it.
func (p *pass) addToRow(row int, d []float32, scale float32) {
	at := row * len(d)
	if p.grad == nil {
		kernel.Axpy(p.params[at:at+len(d)], -p.rate*scale, d)
		return
	}
	g := p.grad[at : at+len(d)]
	if p.rows.add(row) {
		clear(g)
	}
	kernel.Axpy(g, scale, d)
}
