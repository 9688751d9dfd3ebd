// Command tlog reads a ledger that `alliance ledger publish DIR --entries` has written, with the Go implementation of signed
// notes and tiled logs (golang.org/x/mod/sumdb), and with nothing of Alliance.
//
//	tlog VKEY DIR
//
// It verifies the signature under the checkpoint, the root from the tiles, that every entry of the bundles has its place in the
// tree, and that the tree continues each of its own beginnings.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Tiles are 256 hashes wide (C2SP tlog-tiles).
const height = 8

type directory struct{ path string }

func (d directory) Height() int { return height }

// C2SP leaves the height out of the path, and puts a partial tile beside the full one.
func path(t tlog.Tile) string {
	full := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", height))
	return "tile/" + strings.Replace(full, "data/", "entries/", 1)
}

func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, err := os.ReadFile(filepath.Join(d.path, path(t)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (d directory) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

func main() {
	if err := run(os.Args[1], directory{os.Args[2]}); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(vkey string, log directory) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(log.path, "checkpoint"))
	if err != nil {
		return err
	}
	signed, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	lines := strings.Split(signed.Text, "\n")
	if lines[0] != verifier.Name() {
		return fmt.Errorf("the checkpoint is of %s", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil {
		return err
	}
	tree := tlog.Tree{N: size}
	if copy(tree.Hash[:], root) != len(tree.Hash) || len(root) != len(tree.Hash) {
		return fmt.Errorf("the root has %d bytes", len(root))
	}
	hashes := tlog.TileHashReader(tree, log)
	entries, err := bundles(log, size)
	if err != nil {
		return err
	}
	for index, entry := range entries {
		proof, err := tlog.ProveRecord(size, int64(index), hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, size, tree.Hash, int64(index), tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	for older := int64(1); older <= size; older++ {
		hash, err := tlog.TreeHash(older, hashes)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(size, older, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, size, tree.Hash, older, hash); err != nil {
			return fmt.Errorf("%d to %d: %w", older, size, err)
		}
	}
	fmt.Printf("%s\n%d entries, each in its place; %d heads continued; %d signatures of others\n",
		verifier.Name(), size, size, len(signed.UnverifiedSigs))
	return nil
}

// The entries, each behind a length of 16 bits.
func bundles(log directory, size int64) ([][]byte, error) {
	var entries [][]byte
	for n := int64(0); n*256 < size; n++ {
		width := size - n*256
		if width > 256 {
			width = 256
		}
		data, err := os.ReadFile(filepath.Join(log.path, path(tlog.Tile{H: height, L: -1, N: n, W: int(width)})))
		if err != nil {
			return nil, err
		}
		for len(data) >= 2 {
			length := int(binary.BigEndian.Uint16(data))
			if len(data) < 2+length {
				return nil, fmt.Errorf("bundle %d is cut short", n)
			}
			entries = append(entries, data[2:2+length])
			data = data[2+length:]
		}
	}
	if int64(len(entries)) != size {
		return nil, fmt.Errorf("%d entries in the bundles, %d in the checkpoint", len(entries), size)
	}
	return entries, nil
}
