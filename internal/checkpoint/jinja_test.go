// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"maps"
	"strings"
	"testing"

	"sluice/internal/checkpoint"
	"sluice/internal/checkpoint/checkpointtest"
)

// goodTemplates are written here after the constructions that published templates use.
func goodTemplates() map[string]string {
	return map[string]string{
		"empty":      "",
		"plain text": "Hello { world } #} %} __class__",
		"ChatML":     checkpointtest.ChatTemplate,
		"Llama 3": `{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}`,
		"Llama 3.1": `{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}{%- endif %}
{%- for t in tools %}{{- t | tojson(indent=4) }}{%- endfor %}
{%- set tool_call = messages[-1].tool_calls[0].function %}{%- for arg_name, arg_val in tool_call.arguments | items %}{{- arg_name + '="' + arg_val + '"' }}{%- if not loop.last %}, {% endif %}{%- endfor %}`,
		"Mistral":   `{%- set user_messages = messages | selectattr("role", "equalto", "user") | list %}{%- if message == user_messages[-1] %}x{% endif %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}`,
		"Gemma":     `{% set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' %}{% for m in messages[1:] %}{% if m['content'] is string %}{{ m['content'] | trim }}{% elif m['content'] is iterable and m['content'] is not mapping %}{% for item in m['content'] %}{{ item['type'] }}{% endfor %}{% endif %}{% endfor %}`,
		"Qwen 3":    `{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}{%- set message = messages[index] %}{%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}{{ messages[ns.last_query_index].content.split('</think>')[-1].lstrip('\n') }}`,
		"Qwen 3 R":  `{%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{%- endif %}{%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{%- endif %}`,
		"Qwen Code": `{% macro render_extra_keys(json_dict, handled_keys) %}{%- for json_key in json_dict %}{%- if json_key not in handled_keys %}{{- '\n<' ~ json_key ~ '>' ~ (json_dict[json_key] | tojson | safe) ~ '</' ~ json_key ~ '>' }}{%- endif %}{%- endfor %}{%- endmacro %}{%- set handled_keys = ['name', 'type'] %}{{ render_extra_keys(tool.parameters, handled_keys) }}`,
		"dict":      `{{ {'a': {'b': 1}}['a'] if false }}`[:0] + `{% set d = {'a': {'b': 1}} %}{{ d.a.b }}`,
		"comments":  "{# __import__ {{ x }} #}{{- x -}}{%+ if a +%}{% endif %}",
		"generation": `{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% continue %}{% endfor %}
{% set x %}text{% endset %}{{ x }}`,
		"filters": `{{ x|default('a')|upper|replace('b','c')|join(', ')|length }}`,
	}
}

func TestTemplateGood(t *testing.T) {
	for name, text := range goodTemplates() {
		if err := checkpoint.CheckTemplate(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func attacks() map[string]string {
	return map[string]string{
		"CVE-2024-34359":           `{% for c in [].__class__.__base__.__subclasses__() %}{% if c.__name__ == 'catch_warnings' %}{{ c()._module.__builtins__['__import__']('os').system('id') }}{% endif %}{% endfor %}`,
		"attribute":                `{{ x.__class__ }}`,
		"subscript":                `{{ x['__class__'] }}`,
		"single underscore":        `{{ x._module }}`,
		"attr filter":              `{{ x|attr('a') }}`,
		"attr filter, spaced":      "{{ x |\n attr ('a') }}",
		"map attribute":            `{{ x|map(attribute='a') }}`,
		"map":                      `{{ x|map('upper') }}`,
		"format filter":            `{{ '%c'|format(95) }}`,
		"format method":            `{{ '{0.a}'.format(x) }}`,
		"format operator":          `{{ '%c' % 95 }}`,
		"import":                   `{% import 'a' as b %}`,
		"from":                     `{% from 'a' import b %}`,
		"include":                  `{% include 'a' %}`,
		"extends":                  `{% extends 'a' %}`,
		"block":                    `{% block a %}{% endblock %}`,
		"call":                     `{% call f() %}{% endcall %}`,
		"filter block":             `{% filter upper %}{% endfilter %}`,
		"raw":                      `{% raw %}{{ x }}{% endraw %}`,
		"do":                       `{% do x.append(1) %}`,
		"with":                     `{% with a = 1 %}{% endwith %}`,
		"hex escape":               `{{ x['\x5f\x5fclass\x5f\x5f'] }}`,
		"octal escape":             `{{ x['\137'] }}`,
		"unicode escape":           `{{ x['\u005f'] }}`,
		"named escape":             `{{ x['\N{LOW LINE}'] }}`,
		"built subscript":          `{{ x['a' ~ 'b'] }}`,
		"built by set":             `{% set k = 'a' ~ 'b' %}{{ x[k] }}`,
		"built in two steps":       `{% set u = 'a b'.split(' ') %}{% set k = u[0] + u[1] %}{{ x[k] }}`,
		"built used before set":    `{% for i in y %}{{ x[k] }}{% set k = 'a' %}{% endfor %}`,
		"built by block set":       `{% set k %}a{% endset %}{{ x[k] }}`,
		"built by a loop":          `{% for k in ['a','b'] %}{{ x[k] }}{% endfor %}`,
		"built by namespace":       `{% set ns = namespace(k='a') %}{{ x[ns.k] }}`,
		"built by namespace later": `{% set ns = namespace() %}{% set ns.k = 'a' %}{{ x[ns.k] }}`,
		"built by macro":           `{% macro m(k) %}{{ x[k] }}{% endmacro %}{{ m('a') }}`,
		"built by macro keyword":   `{% macro m(k) %}{{ x[k] }}{% endmacro %}{{ m(k='a') }}`,
		"built by macro result":    `{% macro m() %}a{% endmacro %}{{ x[m()] }}`,
		"built by append":          `{% set l = [] %}{% set n = l.append('a') %}{{ x[l[0]] }}`,
		"pieces with underscores":  `{% set k = '_' %}`,
		"edge underscore":          `{{ 'class_' }}`,
		"subscript of a literal":   `{{ 'abc'[1] }}`,
		"call of a subscript":      `{{ x['a']() }}`,
		"call of a call":           `{{ range(1)() }}`,
		"call of a text":           `{{ 'a'() }}`,
		"unknown function":         `{{ open('/etc/passwd') }}`,
		"lipsum":                   `{{ lipsum }}`,
		"cycler":                   `{{ cycler }}`,
		"self":                     `{{ self }}`,
		"unknown method":           `{{ x.read() }}`,
		"mro":                      `{{ x.mro() }}`,
		"frame":                    `{{ x.gi_frame.f_globals }}`,
		"power":                    `{{ 9**9 }}`,
	}
}

func TestTemplateBad(t *testing.T) {
	bad := attacks()
	maps.Copy(bad, map[string]string{
		"unknown filter":      `{{ x|pprint }}`,
		"unknown test":        `{{ x is callable }}`,
		"selectattr path":     `{{ x|selectattr('a.b') }}`,
		"selectattr variable": `{{ x|selectattr(k) }}`,
		"sort by underscores": `{{ x|sort(attribute='__class__') }}`,
		"unclosed tag":        `{{ x `,
		"unclosed text":       `{{ 'x }}`,
		"unclosed comment":    `{# x`,
		"unbalanced":          `{{ (x] }}`,
		"empty statement":     `{% %}`,
		"foreign letter":      `{{ ｘ }}`,
		"backtick":            "{{ `x` }}",
		"not UTF-8":           "\xff",
		"too long":            strings.Repeat("x", 256<<10+1),
	})
	for name, text := range bad {
		if err := checkpoint.CheckTemplate(text); err == nil {
			t.Errorf("%s: accepted %.200s", name, text)
		}
	}
}

func TestTemplateErrorSaysWhere(t *testing.T) {
	err := checkpoint.CheckTemplate("{{ a }}\n{# b\n#}\n{{\n x.__y }}")
	if err == nil || !strings.Contains(err.Error(), "line 5") || !strings.Contains(err.Error(), "__y") {
		t.Errorf("%v", err)
	}
}

func FuzzCheckTemplate(f *testing.F) {
	for _, text := range goodTemplates() {
		f.Add(text)
	}
	f.Add(`{{ x['__class__'] }}{% set k = 'a' ~ "b" %}`)
	f.Fuzz(func(t *testing.T, text string) {
		if checkpoint.CheckTemplate(text) != nil {
			return
		}
		if i := strings.Index(text, "{{ x.__class__ }}"); i >= 0 && checkpoint.CheckTemplate(text[i:]) == nil {
			t.Errorf("accepted %q", text)
		}
		if err := checkpoint.CheckTemplate("{{ x.__class__ }}" + text); err == nil {
			t.Errorf("accepted an attack in front of %q", text)
		}
	})
}
