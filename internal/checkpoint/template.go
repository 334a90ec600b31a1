// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// template is one chat template and where it was found.
type template struct {
	file, name, text string
}

// templates holds every chat template against the base's, or (without a base) against the strict subset of CheckTemplate.
func (in *inspector) templates() error {
	mine, err := in.collect()
	if err != nil {
		return err
	}
	in.rep.Model.Template = "none"
	if in.opt.Base != nil {
		return in.againstBase(mine)
	}
	for _, t := range mine {
		in.setTemplate("subset")
		if err := CheckTemplate(t.text); err != nil {
			in.setTemplate("refused")
			in.refuse(RuleTemplate, t.file, "inspect it together with its base model, or have the template reviewed and accept the rule in the policy", "template %q: %v", t.name, err)
		}
	}
	return nil
}

func (in *inspector) setTemplate(state string) {
	if in.rep.Model.Template != "refused" {
		in.rep.Model.Template = state
	}
}

func (in *inspector) againstBase(mine []template) error {
	files, err := templateFiles(in.opt.Base)
	if err != nil {
		return fmt.Errorf("read the base's chat template: %w", err)
	}
	base := map[string]bool{}
	for _, p := range files {
		list, err := readTemplates(in.opt.Base, p)
		if err != nil {
			return fmt.Errorf("read the base's chat template: %w", err)
		}
		for _, t := range list {
			base[t.text] = true
		}
	}
	for _, t := range mine {
		in.setTemplate("base")
		if !base[t.text] {
			in.setTemplate("refused")
			in.refuse(RuleTemplate, t.file, "put the base's template back", "template %q is not byte for byte one of the base's", t.name)
		}
	}
	if len(mine) == 0 && len(base) > 0 {
		in.refuse(RuleTemplateGone, "", "copy the base's chat template", "the base has a chat template, the snapshot has none")
	}
	return nil
}

// collect reads the snapshot's templates; what cannot be read as one is noted.
func (in *inspector) collect() ([]template, error) {
	var all []template
	for _, p := range slices.Sorted(maps.Keys(in.kinds)) {
		if !holdsTemplate(p) {
			continue
		}
		list, err := readTemplates(in.fsys, p)
		if errors.Is(err, errTemplate) || errors.Is(err, errTooLong) {
			in.refuse(RuleTemplate, p, "put the base's template back", "%v", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// holdsTemplate tells whether loaders look for a template in the file. Every .jinja file counts, wherever it lies.
func holdsTemplate(p string) bool {
	switch path.Base(p) {
	case "tokenizer_config.json", "chat_template.json", "processor_config.json":
		return true
	}
	return path.Ext(p) == ".jinja"
}

func templateFiles(fsys fs.FS) ([]string, error) {
	var files []string
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && holdsTemplate(p) {
			files = append(files, p)
		}
		return err
	})
	return files, err
}

// readTemplates takes the templates out of one file: the whole of a .jinja, or chat_template in a JSON file, which is a text,
// a list of {name, template}, or an object of texts by name.
func readTemplates(fsys fs.FS, p string) ([]template, error) {
	b, err := readSmall(fsys, p, maxConfig)
	if err != nil {
		return nil, err
	}
	if path.Ext(p) == ".jinja" {
		return []template{{p, strings.TrimSuffix(path.Base(p), ".jinja"), string(b)}}, nil
	}
	var holder map[string]json.RawMessage // not a struct: Go would take "Chat_Template" for "chat_template"
	if err := json.Unmarshal(b, &holder); err != nil {
		return nil, fmt.Errorf("%w: %w", errTemplate, err)
	}
	return decodeTemplates(p, holder["chat_template"])
}

func decodeTemplates(p string, raw json.RawMessage) ([]template, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []template{{p, "default", one}}, nil
	}
	var list []struct{ Name, Template string }
	if json.Unmarshal(raw, &list) == nil {
		var all []template
		for _, t := range list {
			all = append(all, template{p, t.Name, t.Template})
		}
		return all, nil
	}
	var byName map[string]string
	if err := json.Unmarshal(raw, &byName); err != nil {
		return nil, fmt.Errorf("%w: chat_template is neither a text nor a list of them", errTemplate)
	}
	var all []template
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, template{p, name, byName[name]})
	}
	return all, nil
}
