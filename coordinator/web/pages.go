package web

import (
	"fmt"
	"net/http"
	"strconv"
)

// pageRows is how many rows a long table shows at once.
const pageRows = 100

// pager is where a page of a long list lies, and the links to its neighbours.
type pager struct {
	From, To, Of uint64 // rows From+1 to To of Of
	Back, On     string // links; empty at the ends
}

// pageOf cuts a list of n rows by the query's "from", how many rows to leave out. What is no number is the beginning.
func pageOf(r *http.Request, n uint64) pager {
	from, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
	if err != nil || from >= n {
		from = 0
	}
	p := pager{From: from, To: min(from+pageRows, n), Of: n}
	link := func(from uint64) string { return fmt.Sprintf("?from=%d", from) }
	if from > 0 {
		p.Back = link(from - min(from, pageRows))
	}
	if p.To < n {
		p.On = link(p.To)
	}
	return p
}

// cut is the page's part of a list of as many rows as the pager was made for.
func cut[T any](p pager, rows []T) []T { return rows[p.From:p.To] }

// First is the number of the page's first row, counted from one.
func (p pager) First() uint64 { return p.From + 1 }
