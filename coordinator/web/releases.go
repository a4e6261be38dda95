package web

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"choir.example/coordinator/state"
)

// releasesBody lists releases, by model, the newest first.
type releasesBody struct {
	Pager    pager
	Releases []state.Release
}

func releases(r *http.Request, s *state.State) (view, error) {
	var all []state.Release
	for _, model := range slices.Sorted(maps.Keys(s.Releases)) {
		of := slices.Clone(s.Releases[model])
		slices.Reverse(of)
		all = append(all, of...)
	}
	p := pageOf(r, uint64(len(all)))
	return view{"releases", "releases", "Releases", releasesBody{p, cut(p, all)}}, nil
}

func release(r *http.Request, s *state.State) (view, error) {
	model := r.PathValue("model")
	version, err := strconv.ParseUint(r.PathValue("version"), 10, 64)
	rel, ok := s.Release(model, version)
	if err != nil || version == 0 || !ok { // 0 is the newest elsewhere; a page has one address
		return view{}, errNotFound
	}
	return view{"release", "releases", fmt.Sprintf("%s version %d", rel.Model, rel.Version), rel}, nil
}
