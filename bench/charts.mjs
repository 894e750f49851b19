// Draws the charts of docs/benchmarks.md from the results: a bar a figure, its goal, and the middle half of its rounds.

import { init } from 'echarts';
import { goalOf, verdictOf } from './statistics.mjs';

const width = 860;
const barHeight = 44;
const colors = { met: '#2da44e', missed: '#cf222e', undecided: '#d4a72c' };

/** Of the figures that compare, an SVG; undefined where there are none. */
export function chart(title, figures) {
  const rows = figures.filter(({ unit }) => unit === 'times').toReversed(); // Drawn from below.
  if (rows.length === 0) return undefined;
  const drawing = init(null, null, { renderer: 'svg', ssr: true, width, height: rows.length * barHeight + 110 });
  drawing.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: { text: title, left: 16, top: 12, textStyle: { fontSize: 15, fontWeight: 600, color: '#1f2328' } },
    grid: { left: 330, right: 70, top: 48, bottom: 40 },
    xAxis: {
      type: 'log',
      min: Math.min(0.5, ...rows.flatMap(valuesOf)) / 1.2,
      max: Math.max(2, ...rows.flatMap(valuesOf)) * 1.2,
      logBase: 2,
      name: 'times',
      nameLocation: 'middle',
      nameGap: 26,
      axisLabel: { formatter: (value) => format(value), showMinLabel: false, showMaxLabel: false },
      splitLine: { lineStyle: { color: '#eaeef2' } },
    },
    yAxis: {
      type: 'category',
      data: rows.map(labelOf),
      axisLabel: { fontSize: 11, lineHeight: 14, color: '#1f2328' },
      axisTick: { show: false },
      axisLine: { show: false },
    },
    series: [{ type: 'custom', data: rows.map(({ figure }, index) => [figure, index]), renderItem: barsOf(rows) }],
  });
  const svg = drawing.renderToSVGString();
  drawing.dispose();
  return svg;
}

function valuesOf({ figure, spread = [], goal }) {
  return [figure, ...spread, ...(goal === '' ? [] : [goalOf(goal)])];
}

function labelOf({ what, against }) {
  return `${what}\nagainst ${against}`;
}

/** From 1, which is "the same as", to the figure. */
function barsOf(rows) {
  return (_params, api) => {
    const index = api.value(1);
    const { figure, goal, spread = [figure, figure] } = rows[index];
    const x = (value) => api.coord([value, index])[0];
    const y = api.coord([1, index])[1];
    const [left, right] = [Math.min(x(1), x(figure)), Math.max(x(1), x(figure))];
    const color = colors[verdictOf(rows[index])] ?? '#8c959f';
    const goalValue = goalOf(goal);
    return {
      type: 'group',
      children: [
        line(x(1), y - 18, y + 18, { stroke: '#8c959f' }),
        {
          type: 'rect',
          shape: { x: left, y: y - 8, width: Math.max(1, right - left), height: 16 },
          style: { fill: color },
        },
        {
          type: 'line',
          shape: { x1: x(spread[0]), y1: y, x2: x(spread[1]), y2: y },
          style: { stroke: '#1f2328', lineWidth: 2 },
        },
        ...(goal === '' ? [] : [line(x(goalValue), y - 14, y + 14, { stroke: '#1f2328', lineDash: [3, 2] })]),
        {
          type: 'text',
          style: {
            text: format(figure),
            x: Math.max(right, x(spread[1]), goal === '' ? 0 : x(goalValue)) + 6,
            y,
            fill: '#1f2328',
            font: '600 12px sans-serif',
            verticalAlign: 'middle',
          },
        },
      ],
    };
  };
}

function line(x, y1, y2, style) {
  return { type: 'line', shape: { x1: x, y1, x2: x, y2 }, style: { lineWidth: 1.5, ...style } };
}

function format(value) {
  return value >= 100 ? Math.round(value).toString() : Number(value.toPrecision(3)).toString();
}
